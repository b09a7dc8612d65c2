"""From a conversation to prompt tokens, and from answer tokens to text."""

from dataclasses import dataclass

from fastchat.conversation import conv_templates
from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from bench.common.errors import UserError
from bench.inputs.templates import OWN, check_template

BROKEN = "\ufffd"  # Replaces a character while some of its bytes are missing.


@dataclass(frozen=True)
class Chat:
    """One template bound to one tokenizer."""

    tokenizer: PreTrainedTokenizerBase
    template: str
    stop_strings: tuple[str, ...]
    stop_ids: frozenset[int]

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, template: str | None = None) -> "Chat":
        """The chat of a tokenizer and the template of this name. None: the tokenizer's own.

        UserError where no template has this name, or the tokenizer has no template of its own.
        """
        check_template(template)
        template = template or OWN
        if template != OWN:
            conversation = conv_templates[template]
            stops = conversation.stop_str or ()
            stops = (stops,) if isinstance(stops, str) else tuple(stops)
            return cls(tokenizer, template, stops, frozenset(conversation.stop_token_ids or ()))
        if not tokenizer.chat_template:
            raise UserError(
                "this model's tokenizer has no chat template; name a FastChat conversation, "
                "such as --template vicuna_v1.1 for Vicuna"
            )
        return cls(tokenizer, template, (), frozenset())

    def prompt(self, asked: list[str], answered: list[str]) -> list[int]:
        """Token ids of the prompt for the last of the user's turns `asked`.

        answered: the answers to all turns before. UserError where the tokenizer's template refuses
        the conversation.
        """
        assert len(asked) == len(answered) + 1
        if self.template != OWN:
            conversation = conv_templates[self.template].copy()
            for question, answer in zip(asked, [*answered, None], strict=True):
                conversation.append_message(conversation.roles[0], question)
                conversation.append_message(conversation.roles[1], answer)
            return self.tokenizer(conversation.get_prompt()).input_ids
        messages = [{"role": "user", "content": asked[0]}]
        for answer, question in zip(answered, asked[1:], strict=True):
            messages.append({"role": "assistant", "content": answer})
            messages.append({"role": "user", "content": question})
        try:
            text = self.tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True
            )
        except TemplateError as error:
            raise UserError(
                f"the tokenizer's chat template refuses the conversation: {error}"
            ) from error
        return self.tokenizer(text, add_special_tokens=False).input_ids

    def text(self, token_ids: list[int]) -> str:
        """The text of an answer's tokens, without white space around it.

        Special tokens are left out. So is everything from the first stop string on.
        """
        return self._until_stop(token_ids).strip()

    def step_ends(self, token_ids: list[int], accept_lengths: list[int]) -> list[int]:
        """How many characters of `text(token_ids)` are complete after each step.

        accept_lengths: tokens that each step committed. A character whose bytes two steps share
        belongs to the later one. Only the last steps' tokens are decoded each time.
        """
        whole = self._until_stop(token_ids)
        text, stripped = whole.strip(), len(whole) - len(whole.lstrip())
        ends: list[int] = []
        # The tokens from `start` to `known` are decoded again with the new ones, because some
        # tokenizers drop the first space of a text. `context` is their text, and `characters` the
        # number of characters up to `known`.
        start = known = now = characters = 0
        context = ""
        for length in accept_lengths:
            now += length
            window = self.tokenizer.decode(token_ids[start:now], skip_special_tokens=True)
            complete = characters + len(window.rstrip(BROKEN)) - len(context)
            ends.append(min(max(complete - stripped, 0), len(text)))
            if not window.endswith(BROKEN):
                start, known, characters = known, now, complete
                context = self.tokenizer.decode(token_ids[start:known], skip_special_tokens=True)
        return [*ends[:-1], len(text)] if ends else []

    def _until_stop(self, token_ids: list[int]) -> str:
        text = self.tokenizer.decode(token_ids, skip_special_tokens=True)
        found = [at for at in map(text.find, self.stop_strings) if at >= 0]
        return text[: min(found, default=None)]

    def stops(self, token_ids: list[int]) -> bool:
        """Whether the end of these tokens' text contains a stop string. Called after each one."""
        if not self.stop_strings:
            return False
        # A token holds at least a byte, and a character has at most four. So this many tokens hold
        # any stop string.
        tail = token_ids[-4 * max(map(len, self.stop_strings)) - 4 :]
        text = self.tokenizer.decode(tail)
        return any(stop in text for stop in self.stop_strings)
