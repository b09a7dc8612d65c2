"""A decoder as the command line names it: `[label=]name[:option=value]...`.

    dynamic:nodes=32              a decoder with an option
    small=dynamic:nodes=8         the same under a label of its own, which tables and files show

A spec is parsed once, here, and printed back by `str`. Nothing in this module needs torch.
"""

from dataclasses import dataclass

BASELINE = "greedy"  # The decoder that all others are compared with.
AUTO = "auto"  # As the value of `nodes`: a budget chooses the number in every step.
# The largest value of `nodes`, and the limit of any tree: a file could ask for more than fits in
# memory.
MOST_NODES = 4096
# Options that a command line may set once, for all decoders that have them.
SHARED_OPTIONS = ("nodes", "topk", "depth", "tree")
LONGEST_LABEL = 60  # Characters.


@dataclass(frozen=True)
class Spec:
    """The name of a decoder, the options that were given, as strings, and a label.

    >>> Spec.parse("small=dynamic:nodes=8:topk=4")
    Spec(name='dynamic', options={'nodes': '8', 'topk': '4'}, own_label='small')
    >>> str(Spec.parse("small=dynamic:nodes=8:topk=4"))
    'small=dynamic:nodes=8:topk=4'
    """

    name: str
    options: dict[str, str]  # In the order given.
    own_label: str | None = None  # None: none was given.

    @classmethod
    def parse(cls, text: str) -> "Spec":
        """The spec of a text. ValueError says what is wrong with it."""
        head, *given = text.split(":")
        options: dict[str, str] = {}
        for assignment in given:
            option, equals, value = assignment.partition("=")
            if not equals:
                raise ValueError(f"decoder {text!r}: {assignment!r} is not option=value")
            if option in options:
                raise ValueError(f"decoder {text!r}: option {option} stands twice")
            options[option] = value
        label, equals, name = head.rpartition("=")
        if equals:
            _check_label(label, text)
        return cls(name, options, label if equals else None)

    @property
    def label(self) -> str:
        """What tables, figures and files call the decoder. Without a label it is the whole spec.

        >>> Spec.parse("dynamic:nodes=8").label, Spec.parse("small=dynamic:nodes=8").label
        ('dynamic:nodes=8', 'small')
        """
        return str(self) if self.own_label is None else self.own_label

    def __str__(self) -> str:
        options = (f"{name}={value}" for name, value in self.options.items())
        label = "" if self.own_label is None else f"{self.own_label}="
        return label + ":".join([self.name, *options])


def _check_label(label: str, text: str) -> None:
    """ValueError where a label could not stand in a table, or could not be named on its own."""
    is_short = 0 < len(label) <= LONGEST_LABEL
    if not is_short or not label.isprintable() or label != label.strip() or set(label) & set("=/"):
        raise ValueError(
            f"decoder {text!r}: the label {label[:LONGEST_LABEL]!r} must be 1 to {LONGEST_LABEL} "
            "characters on one line, without = and /"
        )
