"""What happens between loading and the first timed turn.

Every decoder decodes a few tokens, and its drafts are checked. Where steps are replayed as CUDA
graphs, those that the run may need are captured.
"""

from collections.abc import Collection, Sequence

import torch

from bench.common.errors import UserError, warn
from bench.common.strangers import strangers_code, told
from bench.inputs.questions import Question
from bench.running.decoders import described, plain
from bench.running.turn_generator import TurnGenerator
from decoders.accept import Exact
from decoders.budget import Budgeted
from decoders.decoder import Decoder
from decoders.draft_check import Checked
from decoders.engine.rehearsal import rehearse
from decoders.step import Stop

WARM_UP_TOKENS = 24
SEPARATORS = 8  # Most tokens that a template puts after an answer.


def first_prompt(generator: TurnGenerator, questions: Sequence[Question]) -> list[int]:
    """The prompt of the first question that has one. Where none has, the first one's UserError.

    The turns of a question without a prompt fail in the run, and say so.
    """
    errors = []
    for question in questions:
        try:
            with strangers_code(lambda error: f"no prompt can be made: {told(error)}"):
                return generator.prompt([question.turns[0]], [])
        except UserError as error:
            errors.append(error)
    raise errors[0]


def longest_turn(generator: TurnGenerator, questions: Sequence[Question]) -> int:
    """The most positions that a turn of these questions may take, its prompt included."""
    extents = (_extent(generator, question) for question in questions)
    return min(generator.loaded.model.context, max(extents, default=0))


def _extent(generator: TurnGenerator, question: Question) -> int:
    """The most positions that a question's conversation may take.

    0 where its prompts cannot be made. Its turns will report that.
    """
    try:
        with strangers_code(told):
            prompts = [len(generator.prompt([asked], [])) for asked in question.turns]
    except UserError:
        return 0
    return sum(prompts) + len(prompts) * (generator.config.max_new_tokens + SEPARATORS)


def warm_up(
    label: str,
    decoder: Decoder | Budgeted,
    generator: TurnGenerator,
    prompt: list[int],
    reach: int,
) -> None:
    """Decode a few tokens after a prompt. UserError where that fails, or a draft is invalid.

    label: what messages call the decoder. reach: the most positions that a turn may take.
    """
    longest = generator.loaded.model.context - WARM_UP_TOKENS - 1
    stop = Stop(frozenset(), WARM_UP_TOKENS)
    own = plain(decoder)
    wrong = f"decoder {label!r} cannot run on {generator.loaded.name!r}"
    with strangers_code(lambda error: f"{wrong}: {described(error, own)}"):
        own.expect(reach)
        ids = torch.tensor(prompt[:longest])
        # Without the budget, so that everything is drafted once. Every draft is checked.
        steps = [own.decode(ids, Exact(), stop, watched_by=Checked)]
        if decoder is not own:
            steps.append(decoder.decode(ids, Exact(), stop))
        for decoding in steps:
            for _ in decoding:
                pass
        decoder.forget()


def capture_steps(
    decoders: Collection[Decoder | Budgeted],
    generator: TurnGenerator,
    questions: Sequence[Question],
    reach: int,
) -> None:
    """Capture every kind of step that the turns of a run may need. Nothing without graphs.

    reach: the most positions that a turn may take.
    """
    model = generator.loaded.model
    if not (model.static_shapes and model.graphs.captures):
        return
    temperatures = {generator.config.temperature_of(question.category) for question in questions}
    try:
        # The longest cache first: making a longer one later would discard the graphs.
        beyond = [
            decoder.slots_beyond
            for decoder in decoders
            if type(plain(decoder)).decode is Decoder.decode  # Others use no cache of ours.
        ]
        model.reserve(2 + reach + max(beyond, default=0))
        for decoder in decoders:
            if not decoder.captures:
                continue
            rules = [
                generator.rule_and_stop(decoder, reach, temperature, seed=0)[0]
                for temperature in temperatures
            ]
            for rule in {rule.constants: rule for rule in rules}.values():
                rehearse(model, decoder, rule, reach)
            decoder.forget()  # Its steps held made-up tokens.
    except Exception as error:  # noqa: BLE001 - such as no memory; turns may go well without
        warn(f"not all steps could be captured before the first answer: {told(error)}")
        model.release()
