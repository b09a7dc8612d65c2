import itertools
import math
from types import SimpleNamespace

import pytest
import torch
from scipy.stats import chisquare

from decoders import registry
from decoders.accept import (
    Exact,
    Sample,
    Threshold,
    Verdict,
    deepest,
    make_rule,
    seed_of,
    typical_threshold,
)
from decoders.acceptance import ACCEPTANCES, Typical
from decoders.decoder import Decoder
from decoders.loop import decode
from decoders.model.model import Rows, Verified
from decoders.static.decoder import FILE as TREE
from decoders.static.rank_tree import RankTree
from decoders.step import Stop
from decoders.tree import NO_GUESS, Draft, Tree

VOCAB = 6


class MarkovModel:
    """A model whose next token depends on the last one alone, by a known distribution.

    It is the softmax of the last token's row of `table`.
    """

    device, vocab, num_heads, context = torch.device("cpu"), VOCAB, 3, 10**9
    heads = None
    static_shapes = False
    tokenizer = None
    cache = SimpleNamespace(capacity=10**9)

    def __init__(self, table: torch.Tensor, guessed: torch.Tensor) -> None:
        """`guessed` [vocab, heads, vocab]: the heads' logits after each token."""
        self.table, self.guessed, self.length = table, guessed, 0

    def wipe(self):
        self.length = 0

    def prefill(self, prompt, room, all_rows=False, all_logits=True):
        self.length = len(prompt)
        return Rows(prompt[-1:, None].float(), self.table[prompt[-1:]])

    def verify(self, draft, first=0):
        token = draft.token[first:]
        return Verified(token[:, None].float(), self.table[token], draft)

    def settle(self, operations, verified, *captured_for):
        return operations(verified)

    def draft_logits(self, hidden_state, num_heads=None, heads=None):
        return self.guessed[int(hidden_state)][:num_heads]

    def keep(self, path):
        pass

    def advance(self, tokens):
        self.length += tokens


@pytest.fixture
def markov() -> MarkovModel:
    generator = torch.Generator().manual_seed(5)
    table = torch.randn(VOCAB, VOCAB, generator=generator)
    # The case that published "nucleus" gets wrong.
    table[2] = torch.tensor([0.4, 0.3, 0.1, 0.1, 0.05, 0.05]).log()
    # The heads guess well but not perfectly, so that long and short paths are accepted.
    after_one = table.argmax(-1)
    after_two = table[after_one].argmax(-1)
    guessed = torch.stack([table[after_one], table[after_two], table], dim=1)
    return MarkovModel(table, guessed + 0.5 * torch.randn(guessed.shape, generator=generator))


PATHS = [[0], [1], [2], [0, 0], [0, 1], [0, 2], [1, 0], [0, 0, 0], [0, 0, 1], [0, 1, 0]]
OPTIONS = {
    "static": {"tree": "tree.json"},
    "dynamic": {"nodes": 12, "topk": 4},
    "conditional": {"nodes": 12, "topk": 4, "successors": 3},
    "draft": {"model": "markov", "nodes": 12, "topk": 3},
}


def tree_decoders() -> list[Decoder]:
    """All decoders of ours that decode in our loop, and read nothing but logits and heads."""
    classes = {name: registry.load(name) for name in registry.BUILT_IN}
    decoders = [
        cls(**OPTIONS.get(name, {}))
        for name, cls in classes.items()
        if cls.decode is Decoder.decode and not cls.weights
    ]
    for decoder in decoders:
        if decoder.models:
            table = torch.randn(VOCAB, VOCAB, generator=torch.Generator().manual_seed(6))
            decoder.take(dict.fromkeys(decoder.models, MarkovModel(table, table)))
        elif decoder.path_of(TREE) is not None:
            decoder.take({TREE: RankTree.parse(PATHS)})
    assert len(decoders) >= 4
    return decoders


def tree_decoder(name: str) -> Decoder:
    (decoder,) = (each for each in tree_decoders() if type(each).__name__ == name)
    return decoder


def run(model, decoder, rule, tokens=4000) -> list[int]:
    decoder.setup(model)
    steps = decode(model, decoder, torch.tensor([0]), rule, Stop(frozenset(), tokens))
    return [token for step in steps for token in step.tokens]


def p_value(tokens: list[int], table: torch.Tensor, temperature: float) -> float:
    """Chi-square of every transition's count against the known distribution.

    Returns the smallest p over the states.
    """
    counts = torch.zeros(VOCAB, VOCAB)
    for a, b in zip([0, *tokens], tokens, strict=False):
        counts[a, b] += 1
    expected = (table / temperature).softmax(-1) * counts.sum(-1, keepdim=True)
    rows = [(c, e) for c, e in zip(counts, expected, strict=True) if c.sum() > 100]
    return min(chisquare(c, e, sum_check=False).pvalue for c, e in rows)


@pytest.mark.parametrize("temperature", [0.7, 1.3])
def test_lossless_reproduces_a_known_distribution_for_every_decoder(markov, temperature):
    """One sample per leaf row instead gave a token of probability 0.40 a frequency of 0.52."""
    answers = {}
    for decoder in tree_decoders():
        tokens = run(markov, decoder, Sample(temperature, seed=11))
        assert len(set(tokens)) == VOCAB
        assert p_value(tokens, markov.table, temperature) > 1e-3, decoder
        answers[type(decoder).__name__] = tokens
    # The noise belongs to the position, so not only the distribution is the same: the samples are.
    assert all(tokens == answers["Greedy"] for tokens in answers.values())


def test_the_chi_square_test_notices_a_wrong_distribution(markov):
    """Typical acceptance is not lossless, and this test's statistic can tell."""
    tokens = run(markov, tree_decoder("Conditional"), Threshold(1.0, Typical()))
    assert p_value(tokens, markov.table, 1.0) < 1e-6


def transitions_from_two(tokens: list[int]) -> list[int]:
    return [b for a, b in itertools.pairwise(tokens) if a == 2]


def test_top_p_samples_from_the_nucleus(markov):
    for decoder in tree_decoders():
        after_two = transitions_from_two(run(markov, decoder, Sample(1.0, seed=3, top_p=0.6)))
        assert set(after_two) == {0, 1}  # 0.4 + 0.3 is the smallest set that reaches 0.6.
        share = after_two.count(0) / len(after_two)
        assert abs(share - 4 / 7) < 4 * math.sqrt(0.25 / len(after_two))


def test_typical_samples_are_of_what_lies_above_the_threshold(markov):
    """The probabilities after token 2 are 0.4, 0.3, 0.1, 0.1, 0.05 and 0.05.

    The threshold there is 0.3 * exp(-1.488 nats) = 0.068, which leaves four tokens.
    """
    for decoder in tree_decoders():
        tokens = run(markov, decoder, Sample(1.0, seed=3, typical=Typical(0.09, 0.3)))
        after_two = transitions_from_two(tokens)
        counts = [after_two.count(token) for token in range(VOCAB)]
        assert counts[4:] == [0, 0]
        expected = [len(after_two) * p / 0.9 for p in (0.4, 0.3, 0.1, 0.1)]
        assert chisquare(counts[:4], expected).pvalue > 1e-3


def test_where_nothing_is_typical_the_likeliest_token_is():
    rule = Sample(1.0, seed=0, typical=Typical(0.9, 5.0))
    logits = torch.tensor([[0.0, 0.1, 0.0, 0.0]])
    assert {rule.first_root(logits, length).item() for length in range(200)} == {1}


def test_truncation_at_its_limits():
    """Of two tokens of probability 0.5 a nucleus of 0.5 holds one.

    Neither of them exceeds a threshold of 0.5.
    """
    logits = torch.zeros(2, 2)
    lone = Sample(1.0, seed=0, top_p=0.5)
    assert len({lone.first_root(logits[:1], length).item() for length in range(100)}) == 1
    both = Sample(1.0, seed=0, top_p=0.51)
    assert {both.first_root(logits[:1], length).item() for length in range(100)} == {0, 1}
    verdict = Threshold(1.0, Typical(0.5, 9.0)).judge(draft([0, 1], [0, 0]), logits, length=1)
    assert not verdict.allowed[1]
    logits = torch.tensor([[0.5, 0.25, 0.25]]).log()
    rule = Sample(1.0, seed=0, typical=Typical(logits.softmax(-1)[0, 1].item(), 9.0))
    assert {rule.first_root(logits, length).item() for length in range(100)} == {0}


def test_a_nucleus_is_of_the_likeliest_tokens_wherever_they_stand():
    logits = torch.tensor(
        [[0.05, 0.3, 0.1, 0.1, 0.4, 0.05], [0.4, 0.05, 0.05, 0.3, 0.1, 0.1]]
    ).log()
    rule = Sample(1.0, seed=0, top_p=0.6)
    pair = draft([0, 1], [0, 0])
    chosen = [rule.judge(pair, logits, length).next_token.tolist() for length in range(100)]
    assert [set(tokens) for tokens in zip(*chosen, strict=True)] == [{1, 4}, {0, 3}]


def test_a_temperature_flattens():
    """Probabilities 4/5 and 1/5 at temperature 1 are 2/3 and 1/3 at temperature 2."""
    logits = torch.tensor([[4.0, 1.0]]).log()
    rule = Sample(2.0, seed=0)
    counts = [0, 0]
    for length in range(2000):
        counts[rule.first_root(logits, length).item()] += 1
    assert chisquare(counts, [2000 * 2 / 3, 2000 / 3]).pvalue > 1e-3
    twice = draft([0, 1], [0, 0]), logits.repeat(2, 1), 1
    assert not Threshold(1.0, Typical(0.25, 9.0)).judge(*twice).allowed[1]
    assert Threshold(2.0, Typical(0.25, 9.0)).judge(*twice).allowed[1]


def test_a_seed_decides_the_samples(markov):
    decoder = tree_decoder("Conditional")
    first, again, other = (run(markov, decoder, Sample(1.0, seed), 60) for seed in (1, 1, 2))
    assert first == again != other


def test_a_positions_sample_is_the_same_as_first_token_and_in_any_draft():
    logits = torch.zeros(1, 50)
    path = draft([0, 1, 2, 3], [0, 0, 1, 2])
    for length in (0, 62, 63, 200):
        expected = [
            Sample(1.0, seed=0).first_root(logits, position).item()
            for position in range(length + 1, length + 5)
        ]
        verdict = Sample(1.0, seed=0).judge(path, logits.repeat(4, 1), length)
        assert verdict.next_token.tolist() == expected


def test_the_noise_of_a_block_of_positions_is_made_once(monkeypatch):
    """Drafts of changing depth ask beyond a border, and then before it again."""
    made, block = [], Sample._block

    def counted(rule, number, like):
        made.append(number)
        return block(rule, number, like)

    monkeypatch.setattr(Sample, "_block", counted)
    rule, logits = Sample(1.0, seed=0), torch.zeros(1, 50)
    path = draft([0, 1, 2, 3], [0, 0, 1, 2])
    for length in range(200):
        samples = rule.judge(path, logits.repeat(4, 1), length).next_token
        for position in (length + 3, length + 1):
            root = rule.first_root(logits, position)
            assert root == samples[position - length - 1]
    assert made == [0, 1, 2, 3]


def test_a_draw_of_zero_does_not_make_a_token_certain(monkeypatch):
    """As on Apple's GPUs, now and then."""
    monkeypatch.setattr(torch.Tensor, "exponential_", lambda self, generator: self.zero_())
    noise = Sample(1.0, seed=1)._noise(torch.zeros(1, 9), 0, 1)
    assert noise.isfinite().all() and noise.max() < 17


def test_noise_that_is_no_longer_needed_is_dropped():
    """A long turn held the noise of all its positions."""
    rule, logits = Sample(1.0, seed=1), torch.zeros(1, 9)
    for position in range(0, 64 * 20, 16):
        rule._noise(logits, position, 1)
        assert len(rule._blocks) <= 2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_left_before_anything_is_computed(dtype):
    logits = torch.randn(2, 500, generator=torch.Generator().manual_seed(0)).to(dtype)
    tree = draft([0, 1], [0, 0])
    for rule in (
        Threshold(0.7, Typical()),
        Sample(0.7, 0),
        Sample(0.7, 0, top_p=0.9),
        Sample(0.7, 0, typical=Typical()),
    ):
        for length in range(100):
            half, full = rule.judge(tree, logits, length), rule.judge(tree, logits.float(), length)
            assert half.next_token.equal(full.next_token)
        if half.path_log_prob is not None:
            torch.testing.assert_close(half.path_log_prob, full.path_log_prob)


def draft(tokens: list[int], parent: list[int]) -> Draft:
    return Draft(Tree.from_parent(parent), torch.tensor(tokens))


def test_exact_accepts_what_the_argmax_says():
    #    5 -> 1, 2;  1 -> 3, 4;  3 -> 0
    tree = draft([5, 1, 2, 3, 4, 0], [0, 0, 0, 1, 1, 3])
    logits = torch.zeros(6, VOCAB)
    for node, wanted in enumerate([1, 4, 0, 0, 2, 5]):
        logits[node, wanted] = 1
    verdict = Exact().judge(tree, logits, length=9)
    # Node 5 (token 0) is what its parent wants, but its parent is not what node 1 wants.
    assert verdict.allowed[1:].tolist() == [True, False, False, True, True]
    assert deepest(tree.tree, verdict)[0].tolist() == [4]
    assert verdict.next_token[4] == 2
    assert Exact().first_root(logits[:1], length=9).tolist() == [1]


def test_what_is_kept_is_the_path_of_the_deepest_node():
    tree = draft([5, 1, 2, 3, 4, 0], [0, 0, 0, 1, 1, 3])
    logits = torch.zeros(6, VOCAB)
    for node, wanted in enumerate([1, 4, 0, 0, 2, 5]):
        logits[node, wanted] = 1
    kept = Exact().accept(tree, logits, length=9)
    assert (kept.node.tolist(), kept.depth.tolist()) == ([4], [2])
    assert kept.path.tolist() == [1, 4, 4]  # Padded with its last node to the tree's depth.
    assert kept.tokens.tolist() == [1, 4, 4]
    assert kept.next_token.tolist() == [2]


def test_never_sometimes_always():
    tree = Tree.from_parent([0, 0, 1, 2])
    for allowed, best in (
        ([0, 0, 0, 0], 0),
        ([1, 0, 1, 1], 0),
        ([0, 1, 0, 1], 1),
        ([1, 1, 1, 1], 3),
    ):
        verdict = Verdict(torch.tensor(allowed, dtype=torch.bool), torch.zeros(4))
        assert deepest(tree, verdict)[0].tolist() == [best]


def test_ties_go_to_the_likeliest_path():
    tree = Tree.from_parent([0, 0, 0])
    every = torch.ones(3, dtype=torch.bool)
    verdict = Verdict(every, torch.zeros(3), torch.tensor([0.0, -3.0, -0.5]))
    assert deepest(tree, verdict)[0].tolist() == [2]


def test_likelihood_decides_among_equally_deep_paths_alone():
    tree = Tree.from_parent([0, 0, 0, 1, 2])
    every = torch.ones(5, dtype=torch.bool)
    unlikely = torch.tensor([0.0, 0.0, -0.1, -5000.0, -6000.0])
    best, depth = deepest(tree, Verdict(every, torch.zeros(5), unlikely))
    # Both paths are so unlikely that they count as equal. So it is the first.
    assert (best.tolist(), depth.tolist()) == ([3], [2])
    but_one = torch.tensor([True, True, True, False, True])
    assert deepest(tree, Verdict(but_one, torch.zeros(5), unlikely))[0].tolist() == [4]
    none = torch.tensor([True, False, False, True, True])
    best, depth = deepest(tree, Verdict(none, torch.zeros(5), unlikely))
    assert (best.tolist(), depth.tolist()) == ([0], [0])


def test_the_threshold_by_hand():
    """p > min(epsilon, alpha * exp(-H)), H in nats."""
    prob = torch.tensor([[0.5, 0.5, 0.0], [0.98, 0.01, 0.01]])
    assert Typical() == Typical(0.09, 0.3)  # The paper's.
    high, low = typical_threshold(prob, Typical(0.09, 0.3)).flatten().tolist()
    assert high == pytest.approx(0.09)  # 0.3 * exp(-ln 2) = 0.15 is capped.
    entropy = -(0.98 * math.log(0.98) + 0.02 * math.log(0.01))
    assert low == pytest.approx(min(0.09, 0.3 * math.exp(-entropy)))
    wide = torch.full((1, 1000), 0.001)
    found = typical_threshold(wide, Typical(0.09, 0.3)).item()
    assert found == pytest.approx(0.3 / 1000, rel=1e-4)


def test_threshold_allows_several_siblings_and_continues_with_the_argmax():
    tree = draft([0, 1, 2, 3], [0, 0, 0, 1])
    probs = torch.tensor(
        [
            [0.0, 0.5, 0.4, 0.1],
            [0.7, 0.1, 0.1, 0.1],
            [0.97, 0.01, 0.01, 0.01],
            [0.25, 0.25, 0.2, 0.3],
        ]
    )
    verdict = Threshold(1.0, Typical(0.2, 1.0)).judge(tree, probs.log(), length=1)
    assert verdict.allowed[1:].tolist() == [True, True, False]
    assert deepest(tree.tree, verdict)[0].tolist() == [1]  # 0.5 beats 0.4.
    torch.testing.assert_close(verdict.path_log_prob[1:], torch.tensor([0.5, 0.4, 0.5 * 0.1]).log())
    assert verdict.next_token.tolist() == [1, 0, 0, 3]


def test_a_nodes_threshold_is_that_of_its_parents_distribution():
    """0.3 * exp(-H) is 0.117 after the root and 0.075 after its child."""
    probs = torch.tensor([[0.7, 0.1, 0.1, 0.1], [0.25, 0.25, 0.25, 0.25]])
    rule, pair = Threshold(1.0, Typical(0.9, 0.3)), draft([0, 1], [0, 0])
    assert not rule.judge(pair, probs.log(), length=1).allowed[1]
    assert rule.judge(pair, probs.flip(0).log(), length=1).allowed[1]


def test_a_threshold_is_judged_where_the_logits_lie():
    meta = torch.device("meta")
    path = Draft(Tree.from_parent([0, 0]).to(meta), torch.tensor([0, 1], device=meta))
    logits = torch.zeros(2, 4, device=meta)
    assert Threshold(1.0, Typical()).judge(path, logits, length=1).path_log_prob.is_meta


def test_a_node_without_a_guess_is_never_allowed():
    """Its token is read as token 0 where an embedding must be asked for one."""
    nobody = draft([5, NO_GUESS], [0, 0])
    logits = torch.full((2, VOCAB), -9.0)
    logits[:, 0] = 9.0
    for rule in (Exact(), Sample(1.0, seed=0), Threshold(1.0, Typical())):
        assert not rule.judge(nobody, logits, length=1).allowed[1]
        assert rule.accept(nobody, logits, length=1).depth.tolist() == [0]


def test_rules_by_name():
    for acceptance in ACCEPTANCES:
        assert isinstance(make_rule(acceptance, 0.0, 0, 1.0, Typical()), Exact)
        assert isinstance(make_rule(acceptance, 0.5, 0, 1.0, Typical(), drafts=False), Sample)
    strict = Typical(0.2, 0.4)
    threshold = make_rule("typical", 0.5, 7, 0.9, strict)
    assert (type(threshold), threshold.temperature, threshold.typical) == (Threshold, 0.5, strict)
    for acceptance, typical in (("lossless", None), ("typical-sampled", strict)):
        rule = make_rule(acceptance, 0.5, 7, 0.9, strict)
        about = type(rule), rule.temperature, rule.seed, rule.top_p, rule.typical
        assert about == (Sample, 0.5, 7, 0.9, typical)
    with pytest.raises(ValueError, match="available"):
        make_rule("typcal", 0.5, 0, 1.0, Typical())


def test_seeds_differ_by_every_part():
    seeds = {
        seed_of(0, 81, 0, 1),
        seed_of(1, 81, 0, 1),
        seed_of(0, 82, 0, 1),
        seed_of(0, 81, 1, 1),
        seed_of(0, 81, 0, 2),
    }
    assert len(seeds) == 5
    # The same on every machine, or a run could not be repeated elsewhere.
    assert seed_of(0, 81, 0, 1) == 1042992097479411243
