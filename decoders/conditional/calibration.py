"""The few numbers that the score of `conditional` needs, fitted by `scripts/calibrate.py`.

For a token x at depth d behind tokens whose successors are known, with probability r(x) among them
(0 where it is not):

    log p(x) = coverage[d] + log_softmax(head_weight[d][evidence] * log p_head(x)
                                         + successor_weight[evidence] * log(1 + r(x) / floor))

over the candidates, which are the head's best guesses and the known successors. `evidence` is what
the successors rest on: 0 nothing is known, 1 one token of context, 2 two tokens, 3 two tokens after
which the model has said the same twice.
"""

from dataclasses import asdict, dataclass

FILE = "medusa_calibration.json"
LEVELS = 4  # Of evidence.
LARGEST = 1e9  # Of any number here: far beyond what makes sense, and safe in float32.
MOST_COVERED = -0.01  # A path must score clearly less than its prefix, in float32 too.


@dataclass(frozen=True)
class Calibration:
    """The defaults were fitted on the embedded demo model, and rounded.

    Depths beyond the given ones use the last one's numbers.
    """

    # [depths][evidence]
    head_weight: tuple[tuple[float, ...], ...] = ((1.1, 0.8, 0.6, 0.5), (1.25, 0.7, 0.5, 0.4))
    successor_weight: tuple[float, ...] = (0.0, 0.8, 1.4, 1.8)  # [evidence]
    floor: float = 1.1e-3  # The probability from which on a successor counts.
    # [depths] log of how often the next token is among the candidates.
    coverage: tuple[float, ...] = (-0.045, -0.05, -0.06, -0.075)
    beyond: float = -0.18  # The same for depths that no head reaches.

    def __post_init__(self) -> None:
        """ValueError where a number is not what it must be."""
        numbers = [
            *sum(self.head_weight, ()), *self.successor_weight, self.floor, *self.coverage,
            self.beyond,
        ]  # fmt: skip
        if not all(type(each) in (int, float) and abs(each) <= LARGEST for each in numbers):
            raise ValueError(f"every number must be finite, and at most {LARGEST:g} from 0")
        rows = [*self.head_weight, self.successor_weight]
        if not self.head_weight or any(len(row) != LEVELS for row in rows):
            raise ValueError(
                f"head_weight must be rows of {LEVELS} numbers, and successor_weight {LEVELS} "
                "numbers"
            )
        covered = max(*self.coverage, self.beyond) if self.coverage else 0.0
        if self.floor <= 0 or covered > MOST_COVERED:
            raise ValueError(
                f"floor must be above 0, and coverage and beyond at most {MOST_COVERED}"
            )

    @classmethod
    def parse(cls, content: object) -> "Calibration":
        """A calibration from JSON, as `content` returns it. ValueError says what is wrong."""
        try:
            return cls(**{name: _tuples(value) for name, value in content.items()})
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"not a calibration: {error}") from None

    def content(self) -> dict[str, object]:
        """As JSON data."""
        return asdict(self)


def _tuples(value: object) -> object:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
