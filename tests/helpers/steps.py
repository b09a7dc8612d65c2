"""Decoders bound to a model, and their steps."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from decoders.accept import Exact, Rule
from decoders.budget import LADDER, AutoBudget, Budgeted
from decoders.decoder import Decoder
from decoders.loop import decode
from decoders.model.model import Model
from decoders.registry import make
from decoders.spec import Spec
from decoders.static.decoder import FILE as TREE
from decoders.static.rank_tree import RankTree
from decoders.step import Step, Stop
from decoders.step_costs import StepTimes
from tests.helpers.companions import files_for
from tests.helpers.models import PROMPT

# Seconds of a step by size of LADDER: nodes cost nothing, as on a GPU.
FREE = tuple(1.0 for _ in LADDER)
# Every node costs as much as a one-node step.
COSTLY = tuple(float(size) for size in LADDER)
# Each size costs one hundredth more than the one before, so that the choice is never clear.
GROWING = tuple(1 + 0.01 * place for place in range(len(LADDER)))
# A static tree of a model's own, as `Decoder.take` receives it.
OWN_TREE = {
    TREE: RankTree([(0,), (0, 0), (1,), (2,), (0, 1)], frequency=[0.5, 0.3, 0.2, 0.1, 0.05])
}


def made(text: str, defaults: Mapping[str, object] | None = None) -> Decoder:
    """The decoder of a spec, not yet bound to a model."""
    return make(Spec.parse(text), defaults)


def budget_of(seconds: Sequence[float]) -> AutoBudget:
    """A budget for steps that take so many seconds by size of LADDER, at every length."""
    return AutoBudget(StepTimes((0,), LADDER, (tuple(seconds),)))


def bound(
    model: Model,
    spec: str,
    seconds: Sequence[float] | None = None,
    files: Mapping[str, object] | None = None,
) -> Decoder | Budgeted:
    """The decoder of a spec, set up on a model.

    seconds: by size of LADDER, for nodes=auto. files: what `Decoder.take` receives. None: what the
    decoder cannot do without.
    """
    decoder = made(spec)
    decoder.take({**files_for(decoder, model), **(files or {})})
    if decoder.auto:
        decoder = Budgeted(decoder, budget_of(seconds))
    decoder.setup(model)
    return decoder


def turn(tokens: int, rule: Rule) -> tuple[Tensor, Rule, Stop]:
    """The arguments of `decode` for so many tokens after PROMPT."""
    return PROMPT, rule, Stop(frozenset(), tokens)


def steps_of(
    model: Model,
    spec: str,
    tokens: int = 60,
    rule: Rule | None = None,
    seconds: Sequence[float] = FREE,
    files: Mapping[str, object] | None = None,
) -> list[Step]:
    decoder = bound(model, spec, seconds, files)
    return list(decoder.decode(*turn(tokens, rule or Exact())))


def tokens_of(steps: Sequence[Step]) -> list[int]:
    return [token for step in steps for token in step.tokens]


def generate(
    model: Model, spec: str, rule: Rule, tokens: int = 60, eos: Sequence[int] = ()
) -> tuple[list[int], list[Step]]:
    """The tokens after PROMPT, and the steps, of a decoder without a budget."""
    stop = Stop(frozenset(eos), tokens)
    steps = list(decode(model, bound(model, spec), PROMPT, rule, stop))
    return tokens_of(steps), steps
