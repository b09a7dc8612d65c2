"""Runs every kind of step of a decoder before the first answer, so that all graphs are captured.

Otherwise each kind would be captured on its second occurrence, inside a timed answer.
"""

from collections import deque
from collections.abc import Hashable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor

from decoders.accept import Rule, Verdict
from decoders.drafter import Drafter, Wrapper
from decoders.engine.engine import Engine
from decoders.engine.static_shapes import buckets
from decoders.loop import decode
from decoders.model.model import Rows
from decoders.step import NotANumber, Stop
from decoders.tree import Draft

ROUNDS = 2  # The first runs as it is, the second is captured.


@dataclass(frozen=True, eq=False)
class _Case:
    """One kind of step: the draft, the committed length, and the `kind` of the next proposal."""

    draft: Draft
    length: int
    kind: Hashable


class _Rehearsal(Wrapper):
    """A drafter that replaces each proposal by the next case."""

    def __init__(self, engine: Engine, drafter: Drafter, reach: int) -> None:
        super().__init__(drafter)
        self.setup_key = drafter.setup_key  # Its graphs are the drafter's own.
        self.engine = engine
        self.reach = reach
        self.cases: deque[_Case] | None = None  # None: not known before the first draft.

    def start(self, prompt: Tensor, rows: Rows) -> None:
        super().start(prompt, rows)
        self.inner.become(self.inner.kinds()[0])  # This kind drafts in every step.

    def before_step(self, draft: Draft, forecast: Sequence[float], length: int) -> Draft:
        if self.cases is None:
            self.cases = deque(self._all_cases(draft))
        if not self.cases:
            return draft
        case = self.cases.popleft()
        self.engine.cache.length = case.length
        self.inner.become(case.kind)
        return case.draft

    def after_step(self, kept: int) -> None:
        """Do nothing: rehearsed steps hold made-up tokens, so a budget must not learn from them."""

    def _all_cases(self, proposed: Draft) -> Iterator[_Case]:
        kinds = self.inner.kinds()
        drafts = [proposed.truncated(nodes) for nodes in self.inner.sizes(len(proposed.tree))]
        if len(kinds) > 1:  # Steps that draft nothing verify the root alone.
            drafts.append(Draft.of_root(proposed.token[:1]))
        for draft in drafts:
            nodes, depth = len(draft.tree), draft.tree.max_depth
            for width in buckets(self.reach - 1 + nodes):
                # A kept path must lie within the cache, too.
                length = min(width - nodes, self.engine.cache.capacity - 1 - depth)
                if length < 1:
                    continue
                for kind in kinds:
                    yield from ROUNDS * [_Case(draft, length, kind)]


class _WithRoot(Rule):
    """A rule that finds a first root even where the made-up prompt's logits are NaN."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.constants = rule.constants  # Its graphs are the rule's own.

    def first_root(self, logits: Tensor, length: int) -> Tensor:
        return self.rule.first_root(logits, length).clamp(min=0)

    def scores(self, logits: Tensor, length: int) -> Tensor:
        return self.rule.scores(logits, length)

    def judge(self, draft: Draft, logits: Tensor, length: int) -> Verdict:
        return self.rule.judge(draft, logits, length)


@torch.inference_mode()
def rehearse(engine: Engine, drafter: Drafter, rule: Rule, reach: int) -> None:
    """Run every kind of step that can occur in turns of at most `reach` positions.

    Only for drafters with `captures`: others may not cope with made-up tokens. Ends early where
    nothing can be captured; `Graphs` has warned by then.
    """
    rehearsal = _Rehearsal(engine, drafter, reach)
    prompt = torch.zeros(2, dtype=torch.long)
    stop = Stop(frozenset(), max_tokens=reach)
    while engine.graphs.captures and (rehearsal.cases is None or rehearsal.cases):
        with suppress(NotANumber):  # Made-up tokens may lead to NaN. The next turn goes on.
            _take_steps(engine, rehearsal, prompt, _WithRoot(rule), stop)
    engine.wipe()


def _take_steps(
    engine: Engine, rehearsal: _Rehearsal, prompt: Tensor, rule: Rule, stop: Stop
) -> None:
    for _ in decode(engine, rehearsal, prompt, rule, stop):
        if not rehearsal.cases or not engine.graphs.captures:
            return
