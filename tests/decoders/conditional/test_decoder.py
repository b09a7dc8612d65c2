"""Trees by what the base model has said about what follows what."""

import math

import pytest
import torch

from decoders import draft_vocabulary
from decoders.accept import Exact, Rule, Sample, Threshold
from decoders.acceptance import Typical
from decoders.best_nodes import NO_SCORE
from decoders.conditional import calibration
from decoders.conditional.calibration import Calibration
from decoders.conditional.decoder import Conditional
from decoders.draft_vocabulary import OUTSIDE
from decoders.engine.engine import Engine
from decoders.model.model import Rows, Verified
from decoders.step import Step, Stop
from decoders.tree import NO_GUESS, Draft
from tests.helpers.models import PROMPT, tiny_heads, tiny_llama
from tests.helpers.steps import made, steps_of, tokens_of

K = 3


def bound(model: Engine, files: dict[str, object] | None = None, **options) -> Conditional:
    decoder = Conditional(**options)
    decoder.take(files or {})
    decoder.setup(model)
    return decoder


def ids(*tokens: int) -> torch.Tensor:
    return torch.tensor(tokens)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("nodes", "depth"), [(2, 1), (9, 2), (40, 3), (64, 5)])
@pytest.mark.parametrize("guessed_from", ["all", "frequent"])
def test_the_tree_is_the_top_of_the_score_by_brute_force(seed, nodes, depth, guessed_from):
    """Every path is scored in plain Python from the formula in conditional/calibration.py."""
    vocab, topk, heads = 12, 4, 3
    generator = torch.Generator().manual_seed(seed)
    model = Engine(tiny_llama(vocab_size=vocab), tiny_heads(heads, vocab=vocab, seed=seed))
    weights = Calibration(coverage=(-0.06, -0.08), beyond=-0.3)
    files = {calibration.FILE: weights, draft_vocabulary.FILE: [1, 3, 4, 5, 7, 8, 9, 10]}
    options = dict(nodes=nodes, topk=topk, depth=depth, successors=K, vocab=guessed_from)
    decoder = bound(model, files, **options)
    prompt = torch.randint(vocab, (9,), generator=generator)
    logits = 2 * torch.randn(len(prompt), vocab, generator=generator)
    hidden_state = torch.randn(1, 32, generator=generator)
    decoder.start(prompt, Rows(torch.zeros(len(prompt), 32), logits))
    with torch.inference_mode():
        root = ids(int(prompt[3]))
        draft = decoder.propose(root, hidden_state)
        there = list(range(vocab)) if guessed_from == "all" else decoder.vocabulary.tokens.tolist()
        head_log_prob = model.draft_logits(hidden_state).float()[:, there].log_softmax(-1)

    known = {}  # (token,) or (before, token) -> {successor: p}
    said = {}  # (before, token) -> the likeliest successors so far
    for place in range(1, len(prompt)):  # Nothing stands before the first token.
        before, token = prompt[place - 1 : place + 1].tolist()
        prob, successors = logits[place].softmax(-1).topk(K)
        follows = dict(zip(successors.tolist(), prob.tolist(), strict=True))
        known[token,] = known[before, token] = follows
        said.setdefault((before, token), []).append(successors[0].item())

    def conditional(before: int, token: int, level: int) -> dict[int, float]:
        """log p by token at a level after two tokens."""
        likeliest = said.get((before, token), [])
        is_confirmed = likeliest[-1:] and likeliest[-1] in likeliest[:-1]
        contexts = ((3 if is_confirmed else 2, (before, token)), (1, (token,)))
        in_use = ((n, known[context]) for n, context in contexts if context in known)
        evidence, follows = next(in_use, (0, {}))
        bonus = {
            x: weights.successor_weight[evidence] * math.log1p(p / weights.floor)
            for x, p in follows.items()
        }
        if level < heads:
            head = dict(zip(there, head_log_prob[level].tolist(), strict=True))
            guesses = sorted(head, key=head.get)[-topk:]
            weight = weights.head_weight[min(level, len(weights.head_weight) - 1)][evidence]
            score = {
                x: weight * head.get(x, OUTSIDE) + bonus.get(x, 0.0) for x in {*guesses, *follows}
            }
            covered = weights.coverage[min(level, len(weights.coverage) - 1)]
        else:
            score, covered = bonus, weights.beyond
        total = math.log(sum(map(math.exp, score.values()))) if score else 0.0
        return {x: each - total + covered for x, each in score.items()}

    paths = {(): 0.0}
    level_paths = {(): 0.0}
    for level in range(depth):
        longer = {}
        for path, score in level_paths.items():
            text = [prompt[-1].item(), root.item(), *path]
            following = conditional(text[-2], text[-1], level)
            longer |= {(*path, x): score + each for x, each in following.items()}
        paths |= longer
        level_paths = longer
    expected = sorted(paths.values(), reverse=True)[:nodes]
    is_real = [node for node, score in enumerate(draft.log_prob.tolist()) if score > NO_SCORE / 2]
    found = draft.log_prob[is_real]
    torch.testing.assert_close(found, torch.tensor(expected), rtol=1e-4, atol=1e-4)
    for node in is_real:
        ancestors = draft.tree.ancestors[node, : draft.tree.depth[node]]
        score = paths[tuple(draft.token[ancestors].tolist())]
        assert score == pytest.approx(draft.log_prob[node].item(), abs=1e-3)


def decoded(
    decoder: Conditional,
    prompt: torch.Tensor = PROMPT,
    rule: Rule | None = None,
    tokens: int = 60,
) -> list[Step]:
    return list(decoder.decode(prompt, rule or Exact(), Stop(frozenset(), tokens)))


def said_by(model: Engine, rule: Rule | None = None) -> list[int]:
    """The tokens of the model, one a step."""
    return tokens_of(decoded(bound(model, nodes=1, depth=1), rule=rule))


def test_a_parent_stands_before_its_children_also_among_nodes_that_are_hardly_there():
    """Without heads and with little evidence most nodes have no guess. It must still be a tree."""
    for step in decoded(bound(Engine(tiny_llama()), nodes=64, depth=6)):
        tree = step.draft.tree
        above = tree.parent[1:]
        assert (above < torch.arange(1, len(tree))).all()
        assert (tree.depth[1:] == tree.depth[above] + 1).all()
        token = step.draft.token
        assert token[0] >= 0 and ((token >= 0) | (token == NO_GUESS)).all()
        # Nothing follows a node without a guess.
        assert (token[1:][token[above] == NO_GUESS] == NO_GUESS).all()


@pytest.mark.parametrize("rule", [Exact(), Threshold(0.8, Typical())])
def test_which_word_has_the_first_id_does_not_matter(rule):
    """Nodes without a guess are read as token 0.

    Where that is the right token they must not be kept, nor must anything be learned from them as
    if somebody had guessed it.
    """
    plain = Engine(tiny_llama())
    told = said_by(plain)
    frequent = max(set(told), key=told.count)
    order = torch.arange(101)
    order[[0, frequent]] = order[[frequent, 0]]
    swapped = tiny_llama()
    for weight in (swapped.get_input_embeddings().weight, swapped.get_output_embeddings().weight):
        weight.data = weight.data[order]
    other = Engine(swapped)
    steps = decoded(bound(plain, nodes=64, depth=6), rule=rule)
    again = decoded(bound(other, nodes=64, depth=6), order[PROMPT], rule=rule)
    assert [step.tokens for step in steps] == [order[step.tokens].tolist() for step in again]
    assert sum((step.draft.token == NO_GUESS).sum() for step in steps) > 0


@pytest.mark.parametrize("rule", [Exact(), Sample(0.8, seed=3)])
def test_it_needs_no_heads_and_reaches_beyond_them(rule):
    """On a text that repeats itself."""
    for model in (Engine(tiny_llama()), Engine(tiny_llama(), tiny_heads(1))):
        steps = decoded(bound(model, nodes=32, depth=6), rule=rule)
        assert tokens_of(steps) == said_by(model, rule)
    model = Engine(tiny_llama(), tiny_heads(1))
    prompt = torch.cat((PROMPT, torch.tensor(said_by(model)[:40]), PROMPT))
    again = decoded(bound(model, nodes=32, depth=6), prompt, tokens=30)
    assert max(len(step.tokens) for step in again) > 2


def test_what_one_conversation_taught_is_forgotten_in_the_next(tiny_model):
    def about(steps: list[Step]) -> list[tuple]:
        return [(step.tokens, step.nodes) for step in steps]

    decoder = bound(tiny_model, nodes=16)
    first = about(decoded(decoder))
    decoded(decoder, prompt=PROMPT.flip(0))
    assert about(decoded(decoder)) == first
    assert about(decoded(bound(tiny_model, nodes=16))) == first


def test_logits_and_heads_that_are_no_numbers_leave_a_tree(tiny_model):
    """Off the path they do not matter; the tokens are still greedy's."""
    expected = said_by(tiny_model)
    decoder = bound(tiny_model, nodes=16)
    learn, draft_logits = decoder.table.learn, tiny_model.draft_logits

    def learn_nan(before, token, logits):
        learn(before, token, logits.where(token.unsqueeze(1) % 3 > 0, torch.nan))

    def draft_nan(hidden_state, num_heads, heads):
        return draft_logits(hidden_state, num_heads, heads).index_fill(0, ids(1), torch.nan)

    decoder.table.learn = learn_nan
    tiny_model.draft_logits = draft_nan
    steps = decoded(decoder)
    assert tokens_of(steps) == expected
    assert all((s.draft.tree.parent[1:] < torch.arange(1, s.nodes)).all() for s in steps)


@pytest.mark.parametrize("lone", [1, 3, 300])
def test_steps_that_draft_nothing_teach_as_much_as_others(tiny_model, lone, monkeypatch):
    """They learn it later, in one go."""
    monkeypatch.setattr("decoders.conditional.decoder.CHUNK", 256 if lone < 256 else 7)
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(101, (lone + 1,), generator=generator)
    logits = torch.randn(lone, 101, generator=generator)
    waiting, learning = bound(tiny_model), bound(tiny_model)
    for decoder in (waiting, learning):
        decoder.start(tokens[:1], Rows(torch.zeros(1, 32), torch.zeros(1, 101)))
    for number in range(lone):
        root = Draft.of_root(tokens[number + 1 : number + 2])
        row = logits[number : number + 1]
        waiting.observe(root, Verified(torch.zeros(1, 32), row, root), ids(0))
        learning.table.learn(tokens[number : number + 1], root.token, row)
    waiting._catch_up()
    found, expected = (each.table.after(tokens[:-1], tokens[1:]) for each in (waiting, learning))
    assert found.token.equal(expected.token) and found.evidence.equal(expected.evidence)
    torch.testing.assert_close(found.bonus, expected.bonus)
    assert waiting.last.equal(tokens[-1:])


def test_the_numbers_of_a_model_are_used(tiny_model):
    """Those of the file where there is one, else the defaults."""
    fitted = Calibration(head_weight=((1.0, 0.5, 0.25, 0.2),), floor=0.01, coverage=(-0.1,))
    decoder = bound(tiny_model, {calibration.FILE: fitted})
    assert decoder.head_weight.equal(torch.tensor([fitted.head_weight[0]] * 4))
    assert decoder.table.floor == 0.01
    assert bound(tiny_model).table.floor == Calibration().floor


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("context=3", "context is 3; expected 1 or 2"),
        ("successors=0", "successors is 0; it must be at least 1"),
        ("topk=0", "topk is 0; it must be at least 1"),
        ("depth=0", "depth is 0; it must be at least 1"),
    ],
)
def test_options_out_of_range(options, says):
    with pytest.raises(ValueError, match=says):
        made(f"conditional:{options}")


def test_no_more_successors_than_there_are_tokens(tiny_model):
    with pytest.raises(ValueError, match="successors is 102, but the vocabulary has 101 tokens"):
        bound(tiny_model, successors=102)


def test_a_successor_that_the_heads_cannot_guess_is_drafted_all_the_same(tiny_model):
    """Heads with a token map rule all other tokens out."""
    tiny_model.heads.restrict_to(torch.arange(5))
    steps = steps_of(tiny_model, "conditional:nodes=16:topk=2", 100)
    next_tokens = {int(step.draft.token[step.draft.tree.depth == 1].max()) for step in steps}
    assert max(next_tokens) >= 5


def test_a_token_that_the_heads_cannot_guess_is_none_of_their_guesses(tiny_model):
    """Such tokens were likelier than real guesses below e^-6. Each node has two successors."""
    tiny_model.heads.restrict_to(torch.arange(5))
    for step in steps_of(tiny_model, "conditional:nodes=64:topk=32:successors=2", 60):
        assert (step.draft.token[step.draft.tree.depth == 1] >= 5).sum() <= 2


def test_no_level_is_drafted_that_has_no_room(tiny_model):
    """A node at depth 3 needs three others above it."""
    assert bound(tiny_model, nodes=4).max_depth == 3
    assert bound(tiny_model, nodes=64).max_depth == tiny_model.num_heads + 2
