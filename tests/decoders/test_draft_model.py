"""A smaller model drafts: against a search in plain Python, read without any cache."""

import pytest
import torch

from decoders.accept import Exact, Sample
from decoders.draft_model import DRAFTING, DraftModel
from decoders.drafter import Wrapper
from decoders.engine.engine import Engine
from decoders.greedy import Greedy
from decoders.model.model import Model
from decoders.step import Stop
from decoders.tree import Draft
from tests.helpers.companions import draft_model
from tests.helpers.models import FAMILIES, PROMPT, randomise, tiny_llama, tiny_tokenizer
from tests.helpers.steps import GROWING, steps_of, tokens_of
from tests.helpers.watching import paths_of

FOREVER = Stop(frozenset(), 40)
PROMPT_IDS = PROMPT.tolist()


def bound(model: Engine, drafting: Model, **options) -> DraftModel:
    decoder = DraftModel(model="tiny", **options)
    decoder.take({DRAFTING: drafting})
    decoder.setup(model)
    return decoder


@torch.inference_mode()
def expected_paths(
    drafting: Model, text: list[int], nodes: int, topk: int, depth: int
) -> dict[tuple[int, ...], float]:
    """The search: each level's `topk` best paths are extended by `topk` tokens each."""
    paths, level = {(): 0.0}, {(): 0.0}
    for _ in range(depth):
        longer = {}
        for path in sorted(level, key=lambda path: -level[path])[:topk]:
            logits = drafting.lm(torch.tensor([[*text, *path]])).logits[0, -1].float()
            best = logits.log_softmax(-1).topk(topk)
            for log_prob, token in zip(best.values.tolist(), best.indices.tolist(), strict=True):
                longer[(*path, token)] = level[path] + log_prob
        paths |= longer
        level = longer
    return dict(sorted(paths.items(), key=lambda item: -item[1])[:nodes])


SHAPES = [(16, 4, 5), (6, 1, 5), (4, 1, 9), (64, 3, 2), (9, 2, 3), (2, 3, 4)]


@pytest.mark.parametrize("static_shapes", [False, True])
@pytest.mark.parametrize("family", ["llama", "mistral-window", "gpt2"])
@pytest.mark.parametrize(("nodes", "topk", "depth"), SHAPES)
def test_the_tree_is_that_of_the_draft_models_probabilities(
    nodes, topk, depth, family, static_shapes
):
    """In every step, whatever the steps before have kept; where a window slides, too."""
    model = Engine(tiny_llama())
    model.static_shapes = static_shapes
    drafting = Engine(randomise(FAMILIES[family](), seed=3, std=0.2))
    decoder = bound(model, drafting, nodes=nodes, topk=topk, depth=depth)
    rule, text = Sample(0.8, seed=1), list(PROMPT_IDS)
    for step in decoder.decode(PROMPT, rule, FOREVER):
        root = int(step.draft.token[0])
        expected = expected_paths(drafting, [*text, root], nodes, topk, depth)
        assert paths_of(step.draft) == pytest.approx(expected, abs=1e-3)
        text += step.tokens
    assert text[len(PROMPT_IDS) :] == tokens_of(steps_of(model, "greedy", 40, rule))


@pytest.mark.parametrize("static_shapes", [False, True])
def test_a_model_that_drafts_for_itself_is_always_right(static_shapes):
    """A whole path is kept in each step, so the draft model must read all of it next."""
    model = Engine(tiny_llama())
    model.static_shapes = static_shapes
    decoder = bound(model, Engine(tiny_llama()), nodes=5, topk=1, depth=4)
    steps = list(decoder.decode(PROMPT, Exact(), FOREVER))
    assert [len(step.tokens) for step in steps] == [5] * 8


def test_numbers_that_one_turn_leaves_in_its_cache_do_not_spoil_the_next():
    model, drafting = Engine(tiny_llama()), Engine(tiny_llama())
    model.static_shapes = True
    decoder = bound(model, drafting, nodes=5, topk=1, depth=4)
    for _ in range(2):
        steps = list(decoder.decode(PROMPT, Exact(), FOREVER))
        assert [len(step.tokens) for step in steps] == [5] * 8
        with torch.inference_mode():
            for layer in drafting.cache.layers:
                layer.keys.fill_(torch.nan)


class _Pausing(Wrapper):
    """Asks for a draft in every fourth step, as a budget may."""

    asked = 0

    def propose(self, root: torch.Tensor, hidden_state: torch.Tensor) -> Draft:
        self.asked += 1
        return Draft.of_root(root) if self.asked % 4 else super().propose(root, hidden_state)


def test_after_steps_that_drafted_nothing_the_whole_text_is_known():
    model = Engine(tiny_llama())
    drafting, text = draft_model(model), list(PROMPT_IDS)
    decoder, drafts = bound(model, drafting, nodes=8, topk=2, depth=2), 0
    for step in decoder.decode(PROMPT, Exact(), FOREVER, _Pausing):
        if step.nodes > 1:
            expected = expected_paths(drafting, [*text, int(step.draft.token[0])], 8, 2, 2)
            assert paths_of(step.draft) == pytest.approx(expected, abs=1e-3)
            drafts += 1
        text += step.tokens
    assert drafts > 5


def test_a_budget_takes_the_best_nodes_of_it():
    model = Engine(tiny_llama())
    spec = "draft:model=tiny:nodes=auto:topk=3"
    steps = steps_of(model, spec, 60, seconds=GROWING)
    assert tokens_of(steps) == tokens_of(steps_of(model, "greedy", 60))
    assert len({step.nodes for step in steps}) > 1


@pytest.mark.parametrize("context", [8, 40])
def test_beyond_the_draft_models_context_nothing_is_drafted(context):
    model = Engine(tiny_llama())
    drafting = draft_model(model, max_position_embeddings=context)
    decoder = bound(model, drafting, nodes=6, topk=2, depth=3)
    for _ in range(2):
        steps = list(decoder.decode(PROMPT, Exact(), FOREVER))
        assert tokens_of(steps) == tokens_of(steps_of(model, "greedy", 40))
        drafted = [step.nodes > 1 for step in steps]
        assert drafted == sorted(drafted, reverse=True) and not drafted[-1]
        assert any(drafted) == (context > len(PROMPT))


def test_it_drafts_up_to_the_end_of_the_draft_models_context():
    """The last step that drafts reads the last position: the deepest level is not read."""
    model = Engine(tiny_llama())
    read = []
    drafting = draft_model(model, max_position_embeddings=40)
    verify = drafting.verify
    drafting.verify = lambda draft, first=0: (
        read.append(drafting.length + int(draft.tree.depth.max())),
        verify(draft, first),
    )[1]
    decoder = bound(model, drafting, nodes=6, topk=2, depth=3)
    list(decoder.decode(PROMPT, Exact(), FOREVER))
    assert max(read) == 39


def test_logits_that_are_no_numbers_leave_a_tree():
    model, drafting = Engine(tiny_llama()), draft_model(Engine(tiny_llama()))
    drafting.lm.get_output_embeddings().weight.data.fill_(torch.nan)
    steps = list(bound(model, drafting).decode(PROMPT, Exact(), FOREVER))
    assert tokens_of(steps) == tokens_of(steps_of(model, "greedy", 40))


def test_a_draft_model_of_another_vocabulary_is_refused(tiny_model):
    drafting = draft_model(tiny_model, vocab_size=77)
    with pytest.raises(ValueError, match=r"'tiny' has a vocabulary of 77 tokens.* one of 101"):
        bound(tiny_model, drafting)


@pytest.mark.parametrize("static_shapes", [False, True])
@pytest.mark.parametrize("rows", [100, 128])
def test_rows_of_padding_may_be_of_another_number(rows, static_shapes):
    """As of Qwen2.5's larger and smaller models, which share one tokenizer."""
    tokenizer = tiny_tokenizer()
    assert len(tokenizer) == 100
    model = Engine(tiny_llama(), tokenizer=tokenizer)
    model.static_shapes = static_shapes
    drafting = draft_model(model, vocab_size=rows)
    drafting.tokenizer = tokenizer
    decoder = bound(model, drafting, nodes=16, topk=4, depth=3)
    padding, rule = 100, Sample(5.0, seed=1)
    projection = model.lm.get_output_embeddings().weight.data
    projection[padding] = projection.mean(0) * 20  # So that padding is written.
    prompt = torch.cat((PROMPT, torch.tensor([padding])))
    tokens, roots = [], []
    for step in decoder.decode(prompt, rule, FOREVER):
        tokens += step.tokens
        roots.append(int(step.draft.token[0]))
        assert step.nodes == 16 and step.draft.token.max() < model.vocab
    greedy = Greedy()
    greedy.setup(model)
    assert tokens == tokens_of(list(greedy.decode(prompt, rule, FOREVER)))
    assert padding in roots


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "needs a model that drafts: draft:model=FOLDER"),
        ({"model": ""}, "needs a model that drafts"),
        ({"model": "x", "topk": 0}, "topk is 0; it must be at least 1"),
        ({"model": "x", "depth": 0}, "depth is 0; it must be at least 1"),
        ({"model": "x", "nodes": 0}, "nodes is 0"),
    ],
)
def test_options_out_of_range_are_named(options, says):
    with pytest.raises(ValueError, match=says):
        DraftModel(**options)
