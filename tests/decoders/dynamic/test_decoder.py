import pytest
import torch

from decoders.accept import Exact
from decoders.engine.engine import Engine
from tests.helpers.models import tiny_heads, tiny_llama
from tests.helpers.steps import FREE, bound, generate, made


@pytest.mark.parametrize("nodes", [2, 5, 64, 256])
@pytest.mark.parametrize("heads", [1, 2, 6])
def test_depths_and_sizes_are_parameters(nodes, heads):
    model = Engine(tiny_llama(), tiny_heads(heads))
    expected = generate(model, "greedy", Exact())[0]
    for depth in range(1, heads + 1):
        tokens, steps = generate(model, f"dynamic:nodes={nodes}:depth={depth}", Exact())
        assert tokens == expected
        possible = 1 + sum(32**level for level in range(1, depth + 1))
        assert {step.nodes for step in steps} == {min(nodes, possible)}
        assert max(len(step.tokens) for step in steps) <= depth + 1


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("dynamic:depth=5", "depth 5, but the model has 4 heads"),
        ("dynamic:topk=500", "vocabulary has 101"),
    ],
)
def test_what_does_not_fit_the_model(tiny_model, spec, says):
    with pytest.raises(ValueError, match=says):
        bound(tiny_model, spec)


@pytest.mark.parametrize("spec", ["dynamic:topk=0", "dynamic:depth=0"])
def test_options_are_at_least_one(spec):
    with pytest.raises(ValueError, match="is 0; it must be at least 1"):
        made(spec)


def test_a_model_without_heads():
    with pytest.raises(ValueError, match="no Medusa heads"):
        bound(Engine(tiny_llama()), "dynamic")


@pytest.mark.parametrize(
    ("spec", "sums_over"),
    [
        ("dynamic:nodes=3:depth=1:topk=4", "topk"),
        ("dynamic:nodes=3:depth=1:topk=4:normalise=vocab", "vocab"),
        ("dynamic:nodes=auto:depth=1:topk=4", "vocab"),
    ],
)
def test_probabilities_sum_to_one_over_the_best_guesses_or_the_vocabulary(
    tiny_model, spec, sums_over
):
    decoder = bound(tiny_model, spec, FREE)
    decoder = getattr(decoder, "inner", decoder)
    hidden_state = torch.randn(1, 32)
    logits = tiny_model.draft_logits(hidden_state, 1)[0]
    if sums_over == "topk":
        expected = logits.topk(4).values.log_softmax(-1)
    else:
        expected = logits.log_softmax(-1).topk(4).values
    draft = decoder.propose(torch.tensor([9]), hidden_state)
    after_root = draft.log_prob[1:]
    torch.testing.assert_close(after_root, expected[: len(after_root)])
