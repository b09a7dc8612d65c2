"""What a template makes of a conversation: of a made-up one, and of the questions of a run.

`Render` fills in the template: the user's texts and the answers in between, which are one fewer, or
as many where the conversation ends with an answer. UserError where the template refuses it.
"""

import re
from collections.abc import Callable, Iterable, Iterator

from transformers import PreTrainedTokenizerBase

from bench.common.errors import UserError
from bench.common.files import shown
from bench.store.question_id import QuestionId

Render = Callable[[list[str], list[str]], str]

QUESTIONS = ["Name the first of all colours", "Name the second of all colours"]
ANSWER = "The first of all colours is red"
WORD = re.compile(r"\w+")
# Texts that stand nowhere but between turns: </s>, <|im_end|>, [INST].
MARKER = re.compile(r"<[^\s<>]{2,40}>|\[/?[A-Z_]{3,40}\]")
# The name of whoever speaks next, as in "### Instruction:". An answer may hold it, too.
SPEAKER = re.compile(r"\W*\w{3,40}\W{0,3}:")
# What tokenizers lose: capitals, double spaces, spaces before punctuation, line breaks.
TEXT = "Is  it so ? Don 't say:\n    if a != b :  print( 'Yes' , 1 . 5 ) !"


def holds_question(render: Render) -> bool:
    """Whether the template keeps the text of a trial question."""
    return QUESTIONS[0] in render(QUESTIONS[:1], [])


def text_after_answer(render: Render) -> str:
    """What the template puts between an answer and the next question, without spaces before it.

    Empty where that cannot be told, and where an answer does not begin where its prompt ends: the
    text may then stand in the middle of what the model writes. A prompt may open something that
    earlier answers do not have, such as <think>.
    """
    try:
        prompt = render(QUESTIONS[:1], [])
        try:
            text = render(QUESTIONS, [ANSWER])
        except UserError:  # This template takes one turn alone.
            text = render(QUESTIONS[:1], [ANSWER])
    except UserError:
        return ""
    before, _, after = text.partition(ANSWER)
    if QUESTIONS[0] not in before or not prompt.startswith(before.rstrip()):
        return ""
    return after.partition(QUESTIONS[1])[0].lstrip()


def end_token(after: str, tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The id of the added token that a text after an answer begins with. None: it is other text.

    The token closes the answer's turn, or opens the next one.
    """
    fitting = {
        token.content: number
        for number, token in tokenizer.added_tokens_decoder.items()
        if token.content and after.startswith(token.content) and not token.content[0].isalnum()
    }
    return fitting[max(fitting, key=len)] if fitting else None


def end_marker(after: str) -> str | None:
    """The marker that a text after an answer begins with. None: it is ordinary text."""
    match = MARKER.match(after)
    return match[0] if match else None


def check_end_of_answer(after: str, template: str) -> Iterator[str]:
    """A warning where a template ends answers by the name of the next speaker alone."""
    if match := SPEAKER.match(after):
        yield (
            f"template {template!r} puts {match[0]!r} after an answer, and no token that ends it; "
            "an answer in which the model writes that itself runs on into an invented turn"
        )


def ends_turns(tokenizer: PreTrainedTokenizerBase, token: int) -> bool:
    """Whether a token can end a turn: an added or special one, or a marker such as <|end|>."""
    if token in tokenizer.added_tokens_decoder or token in tokenizer.all_special_ids:
        return True
    return token < len(tokenizer) and bool(MARKER.fullmatch(tokenizer.decode([token])))


def check_stop_ids(
    tokenizer: PreTrainedTokenizerBase, token_ids: Iterable[int], template: str
) -> Iterator[str]:
    """A warning where a FastChat template ends answers at tokens that are ordinary text here."""
    ordinary = [each for each in token_ids if each < len(tokenizer)]
    if ordinary:
        texts = ", ".join(shown(tokenizer.decode([each])) for each in ordinary)
        yield (
            f"template {template!r} ends answers at the tokens {ordinary}, which are ordinary text "
            f"of this tokenizer ({texts}); they end no answer here. The template may be another "
            "model's"
        )


def check_template_holds_all(render: Render, template: str) -> Iterator[str]:
    """Warnings where a template drops or repeats an earlier turn.

    UserError where it refuses a single question, or leaves out the last one. A template that
    refuses a second turn is not reported here: such turns fail in the run.
    """
    for asked, answered in ((QUESTIONS[:1], []), (QUESTIONS, [ANSWER])):
        try:
            text = render(asked, answered)
        except UserError:
            if not answered:
                raise
            return  # The second turns of a run will fail, and say so.
        if asked[-1] not in text:
            raise UserError(
                f"template {template!r} leaves the question out of the prompt, or changes it: it "
                f"makes {shown(text, 200)}; give another --template"
            )
        for said in (*asked, *answered):
            if text.count(said) != 1:
                yield (
                    f"template {template!r} puts {said!r} {text.count(said)} times into the prompt "
                    f"of turn {len(asked)}"
                )


def check_tokenizer_keeps_text(tokenizer: PreTrainedTokenizerBase) -> Iterator[str]:
    """A warning where a tokenizer does not give back a text. UserError where it loses words."""
    ids = tokenizer(TEXT, add_special_tokens=False, verbose=False).input_ids
    back = tokenizer.decode(ids, clean_up_tokenization_spaces=False).strip()
    if back == TEXT:
        return
    what = f"the tokenizer makes {shown(back, 120)} of {TEXT!r}"
    if len(WORD.findall(back)) < len(WORD.findall(TEXT)):
        raise UserError(
            f"{what}, so the model would be asked something else; the tokenizer's files do not fit "
            f"the class that transformers reads them with ({type(tokenizer).__name__}): correct "
            "tokenizer_class in tokenizer_config.json, or use another version of transformers"
        )
    yield f"{what}; prompts and answers may differ from the texts that are shown"


def check_questions(
    render: Render,
    encode: Callable[[str], list[int]],
    tokenizer: PreTrainedTokenizerBase,
    questions: Iterable[tuple[QuestionId, str]],
) -> Iterator[str]:
    """A warning for each way in which the prompts of a run change its questions.

    encode: makes the token ids of a prompt's text. questions: each turn's text, with the id of its
    question. Characters may be escaped or cut off by the template, unknown to the tokenizer, or
    read as special tokens.
    """
    special = {
        number: token.content
        for number, token in tokenizer.added_tokens_decoder.items()
        if token.special and number != tokenizer.unk_token_id
    }
    keeps_text = not any(True for _ in check_tokenizer_keeps_text(tokenizer))
    by_template, by_tokenizer, as_special = [], [], []  # (question_id, an excerpt)
    for question_id, question in questions:
        asked = question.strip()
        try:
            text = render([question], [])
        except UserError:
            continue  # Its turn will fail, and say so.
        read = tokenizer.decode(encode(text), clean_up_tokenization_spaces=False)
        tokens = tokenizer(asked, add_special_tokens=False, verbose=False).input_ids
        if asked not in text:
            by_template.append((question_id, _missing(asked, text)))
        elif keeps_text and asked not in read:
            by_tokenizer.append((question_id, _missing(asked, read)))
        if found := special.keys() & set(tokens):
            as_special.append((question_id, special[min(found)]))
    for changed, what in (
        (by_template, "the template changes {} of the questions' texts, at {}"),
        (by_tokenizer, "the tokenizer loses a part of {} of the questions' texts, at {}"),
        (as_special, "the tokenizer reads a special token in {} of the questions' texts, {}"),
    ):
        if changed:
            question_id, excerpt = changed[0]
            said = what.format(len(changed), shown(excerpt))
            yield f"{said} (the first is of question {question_id})"


def _missing(asked: str, text: str) -> str:
    """Where a question begins to differ from what a text has of it: up to 30 characters."""
    low, high = 0, len(asked)
    while low < high:  # The longest beginning that the text has.
        middle = (low + high + 1) // 2
        low, high = (middle, high) if asked[:middle] in text else (low, middle - 1)
    return asked[max(0, low - 5) : low + 25]
