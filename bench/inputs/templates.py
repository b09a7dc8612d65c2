"""The names of prompt templates. `bench.inputs.chat` fills them in.

A template is a FastChat conversation by name (`vicuna_v1.1`), or `chat`, the tokenizer's own. It is
never guessed from the model's name.
"""

from difflib import get_close_matches

from fastchat.conversation import conv_templates

from bench.common.errors import UserError

OWN = "chat"  # The tokenizer's own.


def check_template(name: str | None) -> None:
    """UserError where no template has this name, or it makes no prompt. None: the tokenizer's."""
    if name in (None, OWN):
        return
    if name in conv_templates:
        if conv_templates[name].sep_style is None:
            raise UserError(
                f"template {name!r} is of a service that is sent messages, and has no form of a "
                "prompt; name another one"
            )
        return
    near = get_close_matches(name, [OWN, *conv_templates], 3)
    if near:
        hint = f"did you mean {' or '.join(near)}?"
    else:
        hint = f"there are {OWN!r} and FastChat's conversation names"
    raise UserError(f"unknown template {name!r}; {hint}")
