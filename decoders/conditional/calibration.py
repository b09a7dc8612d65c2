"""The few numbers that the conditional score of `conditional` needs, fitted by `scripts/calibrate.py` on held-out text.

For a token x at depth d behind tokens of which the successors are known, with r(x) among them (0 where it is not):

    log p(x) = coverage[d] + log_softmax(head_weight[d][evidence] * log p_head(x)
                                         + successor_weight[evidence] * log(1 + r(x) / floor))

over the candidates: the head's best guesses and the known successors. `evidence` is what the successors rest on: 0 nothing is
known, 1 one token of context, 2 two tokens, 3 two tokens after which the model has said the same twice.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

LEVELS = 4  # of evidence
LARGEST = 1e9  # of any number here; far beyond what makes sense, and safe in float32
MOST_COVERED = -0.01  # a path must score clearly less than its prefix, also in float32


@dataclass(frozen=True)
class Calibration:
    """Defaults: fitted on the embedded demo model, rounded; depths beyond the given ones use the last."""

    head_weight: tuple[tuple[float, ...], ...] = ((1.1, 0.8, 0.6, 0.5), (1.25, 0.7, 0.5, 0.4))
    successor_weight: tuple[float, ...] = (0.0, 0.8, 1.4, 1.8)
    floor: float = 1.1e-3
    coverage: tuple[float, ...] = (
        -0.045,
        -0.05,
        -0.06,
        -0.075,
    )  # log of how often the next token is among the candidates
    beyond: float = (
        -0.18
    )  # the same for depths that no head reaches, where the successors stand alone

    def __post_init__(self) -> None:
        """ValueError where a number is not what it must be."""
        numbers = [
            *sum(self.head_weight, ()),
            *self.successor_weight,
            self.floor,
            *self.coverage,
            self.beyond,
        ]
        if not all(type(each) in (int, float) and abs(each) <= LARGEST for each in numbers):
            raise ValueError(f"every number must be finite, and at most {LARGEST:g} from 0")
        if (
            not self.head_weight
            or any(len(row) != LEVELS for row in self.head_weight)
            or len(self.successor_weight) != LEVELS
        ):
            raise ValueError(
                f"head_weight must be rows of {LEVELS} numbers, and successor_weight {LEVELS} numbers"
            )
        if self.floor <= 0 or not self.coverage or max(*self.coverage, self.beyond) > MOST_COVERED:
            raise ValueError(
                f"floor must be above 0, and coverage and beyond at most {MOST_COVERED}"
            )

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")


def read_calibration(path: Path) -> Calibration:
    """ValueError where the file is no calibration, OSError where it cannot be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Calibration(**{name: _tuples(value) for name, value in content.items()})
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} is not a calibration: {error}") from None


def _tuples(value: object) -> object:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
