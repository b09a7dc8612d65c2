"""Trees by what the base model has said about what follows what."""

import json
import math

import pytest
import torch
from torch.nn import functional as F

from bench.running.config import RunConfig
from bench.running.runner import run
from decoders.accept import Exact, Sample, Threshold, Typical
from decoders.conditional.calibration import Calibration, read_calibration
from decoders.conditional.decoder import Conditional
from decoders.conditional.successors import NOTHING, SLOTS, Successors
from decoders.draft_vocabulary import OUTSIDE
from decoders.loop import Stop
from decoders.model.model import Model, Rows
from decoders.tree import NO_GUESS, Draft, Tree
from tests.helpers.checkpoints import write_merged
from tests.helpers.models import PROMPT, tiny_heads, tiny_llama

K = 3


def table(vocab: int = 101, weight: tuple = (0.0, 1.0, 1.0, 1.0), floor: float = 1.0) -> Successors:
    return Successors(vocab, K, weight, floor, torch.device("cpu"))


def row(*likeliest: int, vocab: int = 101) -> torch.Tensor:
    """Logits [1, vocab] of which these tokens are the likeliest, in that order."""
    logits = torch.zeros(1, vocab)
    logits[0, list(likeliest)] = torch.arange(len(likeliest), 0, -1).float() + 1
    return logits


def ids(*tokens: int) -> torch.Tensor:
    return torch.tensor(tokens)


def test_the_successors_of_a_pair_before_those_of_its_last_token_before_none():
    found = table()
    found.learn(ids(5), ids(7), row(1, 2, 3))
    pair, single, nothing = (found.after(ids(a), ids(b)) for a, b in ((5, 7), (6, 7), (5, 8)))
    assert pair.token.tolist() == single.token.tolist() == [[1, 2, 3]]
    assert [each.evidence.item() for each in (pair, single, nothing)] == [2, 1, 0]
    assert nothing.bonus.eq(NOTHING).all() and nothing.token.eq(-1).all()


def test_a_later_row_replaces_an_earlier_one_and_of_equal_ones_the_first_counts():
    found = table()
    found.learn(ids(5), ids(7), row(1, 2, 3))
    found.learn(ids(6, 6), ids(7, 7), torch.cat((row(4, 5, 6), row(7, 8, 9))))
    assert found.after(ids(6), ids(7)).token.tolist() == [[4, 5, 6]]
    assert found.after(ids(1), ids(7)).token.tolist() == [[4, 5, 6]]  # the token alone
    assert found.after(ids(5), ids(7)).token.tolist() == [[1, 2, 3]]  # another pair
    found.forget()
    assert found.after(ids(5, 6), ids(7, 7)).evidence.tolist() == [0, 0]


def test_pairs_that_share_a_place_are_not_taken_for_each_other():
    vocab = SLOTS + 20  # so that (0, x) and (1, x - 20) share one
    found = Successors(vocab, 1, (0, 1, 1, 1), 1.0, torch.device("cpu"))
    says = {token: F.one_hot(ids(token), vocab).float() for token in (3, 4)}
    found.learn(ids(0), ids(30), says[3])
    assert found.after(ids(1), ids(10)).evidence.tolist() == [0]
    found.learn(ids(1), ids(10), says[4])
    assert found.after(ids(1), ids(10)).token.tolist() == [[4]]
    assert found.after(ids(0), ids(30)).evidence.tolist() == [
        1
    ]  # pushed out; the token alone is still known


def test_a_bonus_is_the_weighted_log_of_one_plus_p_over_the_floor():
    found = table(weight=(0.0, 0.5, 2.0, 3.0), floor=0.1)
    logits = torch.randn(1, 101, generator=torch.Generator().manual_seed(1))
    found.learn(ids(5), ids(7), logits)
    prob = logits.softmax(-1).topk(K).values
    torch.testing.assert_close(found.after(ids(5), ids(7)).bonus, 2.0 * torch.log1p(prob / 0.1))
    torch.testing.assert_close(found.after(ids(9), ids(7)).bonus, 0.5 * torch.log1p(prob / 0.1))
    found.learn(ids(5), ids(7), logits)
    torch.testing.assert_close(found.after(ids(5), ids(7)).bonus, 3.0 * torch.log1p(prob / 0.1))


def test_a_pair_is_confirmed_by_saying_the_same_again_and_no_more_by_something_else():
    found = table()
    evidence = []
    for said in (1, 1, 1, 2, 1):
        found.learn(ids(5), ids(7), row(said, 3, 4))
        evidence.append(found.after(ids(5), ids(7)).evidence.item())
    assert evidence == [2, 3, 3, 2, 2]
    found.forget()
    found.learn(ids(5, 6, 5), ids(7, 7, 7), torch.cat((row(1, 3, 4), row(1, 3, 4), row(1, 3, 4))))
    assert found.after(ids(5, 6), ids(7, 7)).evidence.tolist() == [
        3,
        2,
    ]  # the pair itself, twice in one go


def test_a_long_prompt_is_learned_from_its_beginning_on():
    """What is said later stands, also where the prompt is learned in several pieces."""
    found = table()
    rows = 600
    said = torch.cat([row(9, 3, 4), *(row(1, 3, 4) for _ in range(rows - 1))])
    found.learn(torch.full((rows,), 5), torch.full((rows,), 7), said)
    assert found.after(ids(5), ids(7)).token.tolist() == [[9, 3, 4]]


def bound(model: Model, **options) -> Conditional:
    decoder = Conditional(**options)
    decoder.setup(model)
    return decoder


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("nodes", "depth"), [(2, 1), (9, 2), (40, 3), (64, 5)])
@pytest.mark.parametrize("guessed_from", ["all", "frequent"])
def test_the_tree_is_the_top_of_the_score_by_brute_force(seed, nodes, depth, guessed_from):
    """Every path is scored in plain Python from the formula in decoders/calibration.py."""
    vocab, topk, heads = 12, 4, 3
    generator = torch.Generator().manual_seed(seed)
    model = Model(tiny_llama(vocab_size=vocab), tiny_heads(heads, vocab=vocab, seed=seed))
    model.calibration = Calibration(coverage=(-0.06, -0.08), beyond=-0.3)
    model.frequent = [1, 3, 4, 5, 7, 8, 9, 10]
    decoder = bound(model, nodes=nodes, topk=topk, depth=depth, successors=K, vocab=guessed_from)
    prompt = torch.randint(vocab, (9,), generator=generator)
    logits = 2 * torch.randn(len(prompt), vocab, generator=generator)
    hidden = torch.randn(1, 32, generator=generator)
    decoder.start(prompt, Rows(torch.zeros(len(prompt), 32), logits))
    with torch.inference_mode():
        root = ids(int(prompt[3]))
        draft = decoder.propose(root, hidden)
        there = list(range(vocab)) if guessed_from == "all" else decoder.vocabulary.tokens.tolist()
        head_log_prob = model.guess(hidden).float()[:, there].log_softmax(-1)

    known = {}  # (token,) or (before, token) -> {successor: p}
    said = {}  # (before, token) -> the likeliest successors so far
    for at in range(1, len(prompt)):  # nothing stands before the first token
        before, token = prompt[at - 1 : at + 1].tolist()
        prob, successors = logits[at].softmax(-1).topk(K)
        known[token,] = known[before, token] = dict(
            zip(successors.tolist(), prob.tolist(), strict=True)
        )
        said.setdefault((before, token), []).append(successors[0].item())
    weights = model.calibration

    def conditional(before: int, token: int, level: int) -> dict[int, float]:
        likeliest = said.get((before, token), [])
        pair = 3 if likeliest[-1:] and likeliest[-1] in likeliest[:-1] else 2
        evidence, follows = next(
            (
                (n, known[context])
                for n, context in ((pair, (before, token)), (1, (token,)))
                if context in known
            ),
            (0, {}),
        )
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
            line = [prompt[-1].item(), root.item(), *path]
            longer |= {
                (*path, x): score + each
                for x, each in conditional(line[-2], line[-1], level).items()
            }
        paths |= longer
        level_paths = longer
    expected = sorted(paths.values(), reverse=True)[:nodes]
    real = [at for at, score in enumerate(draft.log_prob.tolist()) if score > NOTHING / 2]
    torch.testing.assert_close(draft.log_prob[real], torch.tensor(expected), rtol=1e-4, atol=1e-4)
    for node in real:
        line = draft.tree.lines[node, : draft.tree.depth[node]]
        assert paths[tuple(draft.token[line].tolist())] == pytest.approx(
            draft.log_prob[node].item(), abs=1e-3
        )


def decoded(model: Model, decoder: Conditional, prompt=PROMPT, rule=None, tokens=60):
    return list(decoder.decode(prompt, rule or Exact(), Stop(frozenset(), tokens)))


def test_a_parent_stands_before_its_children_also_among_nodes_that_are_hardly_there():
    """Without heads and with little evidence most of the tree is filled up with nothing; it must still be one."""
    model = Model(tiny_llama())
    for step in decoded(model, bound(model, nodes=64, depth=6)):
        tree = step.draft.tree
        above = tree.parent[1:]
        assert (above < torch.arange(1, len(tree))).all()
        assert (tree.depth[1:] == tree.depth[above] + 1).all()
        token = step.draft.token
        assert token[0] >= 0 and ((token >= 0) | (token == NO_GUESS)).all()
        assert (
            token[1:][token[above] == NO_GUESS] == NO_GUESS
        ).all()  # nothing follows what is not there


@pytest.mark.parametrize("rule", [Exact(), Threshold(0.8, Typical())])
def test_which_word_has_the_first_id_does_not_matter(rule):
    """Places of the tree for which there is no guess are read as some word; they must not be kept where it is the right one,
    nor be learned from as if somebody had guessed it."""
    lm = tiny_llama()
    told = [
        token
        for step in decoded(Model(lm), bound(Model(lm), nodes=1, depth=1))
        for token in step.tokens
    ]
    frequent = max(set(told), key=told.count)
    order = torch.arange(101)
    order[[0, frequent]] = order[[frequent, 0]]
    swapped = tiny_llama()
    for weight in (swapped.get_input_embeddings().weight, swapped.get_output_embeddings().weight):
        weight.data = weight.data[order]
    plain, other = (Model(each) for each in (lm, swapped))
    steps = decoded(plain, bound(plain, nodes=64, depth=6), rule=rule)
    again = decoded(other, bound(other, nodes=64, depth=6), order[PROMPT], rule=rule)
    assert [step.tokens for step in steps] == [order[step.tokens].tolist() for step in again]
    assert sum((step.draft.token == NO_GUESS).sum() for step in steps) > 0


@pytest.mark.parametrize("rule", [Exact(), Sample(0.8, seed=3)])
def test_it_needs_no_heads_and_reaches_beyond_them(rule):
    """On a text that repeats itself."""
    lm = tiny_llama()
    for model in (Model(lm), Model(lm, tiny_heads(1))):
        greedy = decoded(model, bound(model, nodes=1, depth=1), rule=rule)
        steps = decoded(model, bound(model, nodes=32, depth=6), rule=rule, prompt=PROMPT)
        assert [t for s in steps for t in s.tokens] == [t for s in greedy for t in s.tokens]
    model = Model(lm, tiny_heads(1))
    text = torch.tensor(
        [t for s in decoded(model, bound(model, nodes=1, depth=1)) for t in s.tokens]
    )
    again = decoded(
        model,
        bound(model, nodes=32, depth=6),
        prompt=torch.cat((PROMPT, text[:40], PROMPT)),
        tokens=30,
    )
    assert max(len(step.tokens) for step in again) > 2


def test_what_one_conversation_taught_is_forgotten_in_the_next(tiny_model):
    decoder = bound(tiny_model, nodes=16)
    first = [(s.tokens, s.nodes) for s in decoded(tiny_model, decoder)]
    decoded(tiny_model, decoder, prompt=PROMPT.flip(0))
    assert [(s.tokens, s.nodes) for s in decoded(tiny_model, decoder)] == first
    assert [(s.tokens, s.nodes) for s in decoded(tiny_model, bound(tiny_model, nodes=16))] == first


def test_the_order_of_questions_changes_nothing(tmp_path):
    write_merged(tmp_path / "model")
    questions = [
        {"question_id": n, "category": "math", "turns": [text, "more"]}
        for n, text in enumerate(("abc", "b c d", "xyz"))
    ]
    rows = []
    for name, asked in (("a", questions), ("b", questions[::-1])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(each) + "\n" for each in asked))
        config = RunConfig(
            decoders=("conditional:nodes=16",), model=str(tmp_path / "model"), questions=str(tmp_path / f"{name}.jsonl"),
            max_new_tokens=20, device="cpu",
        )  # fmt: skip
        folder = run(config, tmp_path / name, ["test"])
        turns = [folder.turn(key) for key in sorted(folder)]
        rows.append([(turn.key, turn.token_ids, turn.accept_lengths) for turn in turns])
    assert rows[0] == rows[1] and len(rows[0]) == 6


def test_a_calibration_is_read_back(tmp_path):
    made = Calibration(head_weight=((1.0, 0.5, 0.25, 0.2),), floor=0.01, coverage=(-0.1,))
    made.write(tmp_path / "calibration.json")
    assert read_calibration(tmp_path / "calibration.json") == made


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("[]", "not a calibration"), ("{", "not a calibration"), ('{"flor": 1}', "flor"), ('{"floor": 0}', "above 0"),
        ('{"floor": "1"}', "finite"), ('{"coverage": [0.0]}', "at most"), ('{"coverage": []}', "at most"),
        ('{"head_weight": [[1, 2]]}', "rows of 4"), ('{"head_weight": 3}', "not a calibration"), ('{"beyond": 1}', "at most"),
        ('{"head_weight": [[1, 2, NaN]]}', "not a calibration"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_calibration_says_why(tmp_path, content, says):
    (tmp_path / "calibration.json").write_text(content)
    with pytest.raises(ValueError, match=says):
        read_calibration(tmp_path / "calibration.json")


def test_logits_and_heads_that_are_no_numbers_leave_a_tree(tiny_model):
    """Off the path they are nobody's fault; the tokens are still greedy's."""
    expected = [
        t for s in decoded(tiny_model, bound(tiny_model, nodes=1, depth=1)) for t in s.tokens
    ]
    decoder = bound(tiny_model, nodes=16)
    learn, guess = decoder.table.learn, tiny_model.guess
    decoder.table.learn = lambda before, token, logits: learn(
        before, token, logits.where(token.unsqueeze(1) % 3 > 0, torch.nan)
    )
    tiny_model.guess = lambda hidden, first, heads: guess(hidden, first, heads).index_fill(
        0, ids(1), torch.nan
    )
    steps = decoded(tiny_model, decoder)
    assert [t for s in steps for t in s.tokens] == expected
    assert all((s.draft.tree.parent[1:] < torch.arange(1, s.nodes)).all() for s in steps)


@pytest.mark.parametrize("lone", [1, 3, 300])
def test_steps_that_draft_nothing_teach_as_much_as_others(tiny_model, lone, monkeypatch):
    """Later, and all at once."""
    monkeypatch.setattr("decoders.conditional.decoder.CHUNK", 256 if lone < 256 else 7)
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(101, (lone + 1,), generator=generator)
    logits = torch.randn(lone, 101, generator=generator)
    waiting, learning = bound(tiny_model), bound(tiny_model)
    for decoder in (waiting, learning):
        decoder.start(tokens[:1], Rows(torch.zeros(1, 32), torch.zeros(1, 101)))
    for at in range(lone):
        root = Draft(Tree.from_parent([0]), tokens[at + 1 : at + 2])
        waiting.observe(root, Rows(torch.zeros(1, 32), logits[at : at + 1]), ids(0))
        learning.table.learn(tokens[at : at + 1], tokens[at + 1 : at + 2], logits[at : at + 1])
    waiting._catch_up()
    found, expected = (each.table.after(tokens[:-1], tokens[1:]) for each in (waiting, learning))
    assert found.token.equal(expected.token) and found.evidence.equal(expected.evidence)
    torch.testing.assert_close(found.bonus, expected.bonus)
    assert waiting.last.equal(tokens[-1:])
