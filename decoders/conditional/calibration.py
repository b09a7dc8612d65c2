"""The few numbers that the score of `conditional` needs, fitted by `scripts/calibrate.py`.

For a token x at depth d, where r(x) is its probability among the known successors of the tokens
before it (0 where it is not among them):

    log p(x) = coverage[d] + log_softmax(head_weight[d][evidence] * log p_head(x)
                                         + successor_weight[evidence] * log(1 + r(x) / floor))

The softmax runs over the candidates: the head's best guesses and the known successors. `evidence`
says what the successors rest on: 0 nothing is known; 1 one token of context; 2 two tokens; 3 two
tokens after which the model has predicted the same token twice.
"""

from dataclasses import asdict, dataclass

FILE = "medusa_calibration.json"
LEVELS = 4  # Levels of evidence.
LARGEST = 1e9  # The largest number allowed in a file: beyond what makes sense, safe in float32.
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
    beyond: float = -0.18  # `coverage` of depths that no head reaches.

    def __post_init__(self) -> None:
        """ValueError where a number is out of its range, or a row has the wrong length."""
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
