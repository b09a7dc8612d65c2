"""From a conversation to prompt tokens, and from answer tokens to text."""

import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from hashlib import sha256

from fastchat.conversation import conv_templates
from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from bench.common.errors import UserError
from bench.common.strangers import message_of, told
from bench.inputs.bounds import PROBE
from bench.inputs.template_clock import with_clock
from bench.inputs.template_trial import (
    ANSWER,
    QUESTIONS,
    check_end_of_answer,
    check_questions,
    check_stop_ids,
    check_template_holds_all,
    check_tokenizer_keeps_text,
    end_marker,
    end_token,
    ends_turns,
    holds_question,
    text_after_answer,
)
from bench.inputs.templates import OWN, check_template
from bench.store.question_id import QuestionId

BROKEN = "\ufffd"  # Replaces a character while some of its bytes are missing.


def _utc() -> datetime:
    return datetime.now(timezone.utc)


def _named_stops(template: str) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """The texts and the token ids by which a FastChat template says that answers end."""
    if template == OWN:
        return (), ()
    conversation = conv_templates[template]
    texts = conversation.stop_str or ()
    texts = (texts,) if isinstance(texts, str) else tuple(texts)
    return texts, tuple(conversation.stop_token_ids or ())


def _check_own_template(tokenizer: PreTrainedTokenizerBase) -> None:
    """UserError where a tokenizer has no chat template, or several and no default."""
    templates = tokenizer.chat_template
    if not templates:
        raise UserError(
            "this model's tokenizer has no chat template; name a FastChat conversation, "
            "such as --template vicuna_v1.1 for Vicuna"
        )
    if isinstance(templates, dict) and "default" not in templates:
        names = ", ".join(sorted(templates))
        raise UserError(
            f"this model's tokenizer has several chat templates ({names}) and none that is "
            "called default; name one so in its files, or give a FastChat conversation, such "
            "as --template vicuna_v1.1 for Vicuna"
        )


@dataclass(frozen=True)
class Chat:
    """One template bound to one tokenizer."""

    tokenizer: PreTrainedTokenizerBase
    template: str
    stop_strings: tuple[str, ...]
    stop_ids: frozenset[int]  # Token ids that end an answer, beside the model's own.
    takes_parts: bool = False  # Whether the template expects a message as a list of parts.
    now: datetime = field(default_factory=_utc)  # The time that the template is told.
    # The token by which the template ends an answer; it is one of `stop_ids`. None: other text.
    end_id: int | None = None

    @classmethod
    def of(
        cls,
        tokenizer: PreTrainedTokenizerBase,
        template: str | None = None,
        now: datetime | None = None,
    ) -> "Chat":
        """The chat of a tokenizer and the template of this name. None: the tokenizer's own.

        now: the time that the template is told. None: that of this call. UserError where no
        template has this name, or the tokenizer has no template of its own.
        """
        check_template(template)
        template = template or OWN
        if template == OWN:
            _check_own_template(tokenizer)
        stops, ids = _named_stops(template)
        stop_ids = frozenset(each for each in ids if ends_turns(tokenizer, each))
        chat = cls(tokenizer, template, stops, stop_ids, now=now or _utc())
        return replace(chat, takes_parts=chat._needs_parts())._with_end()

    def _with_end(self) -> "Chat":
        """The same chat, which also ends answers where its template ends them."""
        after = text_after_answer(self.prompt_text)
        if (end_id := end_token(after, self.tokenizer)) is not None:
            return replace(self, end_id=end_id, stop_ids=self.stop_ids | {end_id})
        marker = end_marker(after)
        if marker is not None and marker not in self.stop_strings:
            return replace(self, stop_strings=(*self.stop_strings, marker))
        return self

    def _needs_parts(self) -> bool:
        """Whether the template loses a message's text, but keeps it in a list of parts."""
        for takes_parts in (False, True):
            with suppress(UserError):
                if holds_question(replace(self, takes_parts=takes_parts).prompt_text):
                    return takes_parts
        return False

    def check(self) -> Iterator[str]:
        """Warnings about this chat's prompts and texts, tried with a made-up conversation.

        UserError where the template drops the question, or the tokenizer loses words.
        """
        yield from check_template_holds_all(self.prompt_text, self.template)
        yield from check_tokenizer_keeps_text(self.tokenizer)
        _, ids = _named_stops(self.template)
        left_out = sorted(set(ids) - self.stop_ids)
        yield from check_stop_ids(self.tokenizer, left_out, self.template)
        if not (self.stop_ids or self.stop_strings):
            yield from check_end_of_answer(text_after_answer(self.prompt_text), self.template)
        yield from self._check_start()

    def _check_start(self) -> Iterator[str]:
        """A warning where prompts begin with BOS twice, or without it where texts have it."""
        bos = self.tokenizer.bos_token_id
        name, start = self.tokenizer.bos_token, self.prompt(QUESTIONS[:1], [])[:2]
        if start == [bos, bos]:
            yield f"the prompts of template {self.template!r} begin with {name} twice"
        elif bos is not None and self.tokenizer("a").input_ids[:1] == [bos] != start[:1]:
            yield (
                f"this tokenizer puts {name} before a text, and its chat template does not: "
                "prompts have none, as transformers' apply_chat_template has it"
            )

    def check_questions(self, questions: Iterable[tuple[QuestionId, str]]) -> Iterator[str]:
        """Warnings where the prompts of a run change its questions.

        questions: each turn's text, with the id of its question.
        """
        return check_questions(self.prompt_text, self._encoded, self.tokenizer, questions)

    def prompt(self, asked: list[str], answered: list[str]) -> list[int]:
        """Token ids of the prompt for the last of the user's turns `asked`.

        answered: the answers to all turns before. UserError where the tokenizer's template refuses
        the conversation.
        """
        assert len(asked) == len(answered) + 1
        return self._encoded(self.prompt_text(asked, answered))

    def _encoded(self, text: str) -> list[int]:
        """Token ids of a prompt's text.

        A tokenizer may put special tokens around a text. Those before it are put there once, if the
        template is not the tokenizer's own, which is taken as it is. Those after it would end the
        prompt, and are left out.
        """
        # verbose: transformers would warn of long prompts. The model's context is checked here.
        ids = self.tokenizer(text, add_special_tokens=False, verbose=False).input_ids
        if self.template == OWN:
            return ids
        whole = self.tokenizer(text, verbose=False).input_ids
        starts = range(len(whole) - len(ids) + 1)
        start = next((at for at in starts if whole[at : at + len(ids)] == ids), 0)
        before = whole[:start]
        return ids if ids[:start] == before else before + ids

    def digest(self) -> str:
        """A digest of the prompt of a made-up conversation.

        It is another one for another template, tokenizer or date, where the template has a date.
        """
        try:
            ids = self.prompt(QUESTIONS, [ANSWER])
        except UserError:  # This template takes one turn alone.
            ids = self.prompt(QUESTIONS[:1], [])
        return sha256(json.dumps(ids).encode()).hexdigest()

    def digest_of_text(self) -> str:
        """A digest of the tokens of a text with all kinds of characters.

        It is another one where another version of a tokenizer splits digits or signs differently.
        """
        ids = self.tokenizer(PROBE, add_special_tokens=False, verbose=False).input_ids
        return sha256(json.dumps(ids).encode()).hexdigest()

    def prompt_text(self, asked: list[str], answered: list[str]) -> str:
        """The text of a prompt, as `prompt` reads it.

        Where there are as many answers as questions, it is the conversation up to the last answer.
        """
        open_turn = [None] * (len(asked) - len(answered))
        if self.template != OWN:
            conversation = conv_templates[self.template].copy()
            for question, answer in zip(asked, [*answered, *open_turn], strict=True):
                conversation.append_message(conversation.roles[0], question)
                # FastChat would take an empty answer for one that is still to come.
                conversation.append_message(conversation.roles[1], answer if answer != "" else " ")
            return conversation.get_prompt()
        messages = []
        for question, answer in zip(asked, [*answered, *open_turn], strict=True):
            messages.append({"role": "user", "content": self._content(question)})
            if answer is not None:
                messages.append({"role": "assistant", "content": self._content(answer)})
        try:
            return self.tokenizer.apply_chat_template(
                messages,
                tokenize=False,
                add_generation_prompt=bool(open_turn),
                **with_clock(self.tokenizer.get_chat_template(), self.now),
            )
        except TemplateError as error:
            raise UserError(
                f"the tokenizer's chat template refuses the conversation: {message_of(error)}"
            ) from error
        except Exception as error:
            raise UserError(
                f"the tokenizer's chat template cannot be filled in: {told(error)}"
            ) from error

    def _content(self, text: str) -> str | list[dict[str, str]]:
        return [{"type": "text", "text": text}] if self.takes_parts else text

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
        start = known = end = characters = 0
        context = ""
        for length in accept_lengths:
            end += length
            window = self._decoded(token_ids[start:end])
            complete = characters + len(window.rstrip(BROKEN)) - len(context)
            ends.append(min(max(complete - stripped, 0), len(text)))
            if not window.endswith(BROKEN):
                start, known, characters = known, end, complete
                context = self._decoded(token_ids[start:known])
        return [*ends[:-1], len(text)] if ends else []

    def _until_stop(self, token_ids: list[int]) -> str:
        if token_ids and token_ids[-1] in self.stop_ids:  # It need not be a special token.
            token_ids = token_ids[:-1]
        text = self._decoded(token_ids)
        found = [at for at in map(text.find, self.stop_strings) if at >= 0]
        return text[: min(found, default=None)]

    def special_inside(self, token_ids: list[int]) -> str | None:
        """The first special token before an answer's last token. None: the answer holds none.

        `text` leaves such tokens out.
        """
        special = {
            number: token.content
            for number, token in self.tokenizer.added_tokens_decoder.items()
            if token.special
        }
        return next((special[each] for each in token_ids[:-1] if each in special), None)

    def stops(self, token_ids: list[int]) -> bool:
        """Whether the end of these tokens' text contains a stop string. Called after each one."""
        if not self.stop_strings:
            return False
        # A token holds at least a byte, and a character has at most four. So this many tokens hold
        # any stop string.
        tail = token_ids[-4 * max(map(len, self.stop_strings)) - 4 :]
        text = self._decoded(tail, skip_special_tokens=False)
        return any(stop in text for stop in self.stop_strings)

    def _decoded(self, token_ids: list[int], skip_special_tokens: bool = True) -> str:
        """The text of tokens, as they were generated: no space in it is "cleaned up"."""
        return self.tokenizer.decode(
            token_ids,
            skip_special_tokens=skip_special_tokens,
            clean_up_tokenization_spaces=False,
        )
