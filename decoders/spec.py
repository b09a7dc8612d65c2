"""A decoder as the command line names it: `name[:option=value]...`, such as `dynamic:nodes=32`.

A spec is parsed once, here, and printed back by `str`. Nothing in this module needs torch.
"""

from dataclasses import dataclass

AUTO = "auto"  # As the value of `nodes`: a budget chooses the number in every step.


@dataclass(frozen=True)
class Spec:
    """The name of a decoder and the options that were given, as strings.

    >>> Spec.parse("dynamic:nodes=32:topk=8")
    Spec(name='dynamic', options={'nodes': '32', 'topk': '8'})
    >>> str(Spec.parse("dynamic:nodes=32:topk=8"))
    'dynamic:nodes=32:topk=8'
    """

    name: str
    options: dict[str, str]  # In the order given.

    @classmethod
    def parse(cls, text: str) -> "Spec":
        """The spec of a text. ValueError where an option is no `option=value`, or is repeated."""
        name, *given = text.split(":")
        options: dict[str, str] = {}
        for assignment in given:
            option, equals, value = assignment.partition("=")
            if not equals:
                raise ValueError(f"decoder {text!r}: {assignment!r} is not option=value")
            if option in options:
                raise ValueError(f"decoder {text!r}: option {option} stands twice")
            options[option] = value
        return cls(name, options)

    def __str__(self) -> str:
        return ":".join([self.name, *(f"{name}={value}" for name, value in self.options.items())])
