import pytest
import torch
from torch import nn
from torch.nn import functional as F

from decoders.accept import Exact
from decoders.engine import few_rows
from decoders.engine.engine import Engine
from decoders.model.heads import MedusaHeads
from tests.helpers.models import randomise, tiny_llama
from tests.helpers.steps import generate


def published(
    heads: int, layers: int = 1, hidden: int = 8, vocab: int = 11
) -> dict[str, torch.Tensor]:
    stacked = randomise(MedusaHeads(heads, hidden, vocab, layers))
    stacked.block_bias.data.normal_(generator=torch.Generator().manual_seed(3))
    return {name: tensor.clone() for name, tensor in stacked.published().items()}


@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize(("heads", "layers"), [(1, 1), (4, 1), (3, 2)])
def test_stacked_heads_compute_what_the_published_ones_do(heads, layers, rows):
    tensors = published(heads, layers)
    stacked = MedusaHeads.from_published(tensors, hidden=8, vocab=11)
    hidden_states = torch.randn(rows, 8, generator=torch.Generator().manual_seed(1))
    logits = stacked(hidden_states)
    assert logits.shape == (heads, rows, 11)
    for i in range(heads):
        x = hidden_states
        for j in range(layers):
            weight, bias = (tensors[f"{i}.{j}.linear.{name}"] for name in ("weight", "bias"))
            x = x + F.silu(F.linear(x, weight, bias))
        torch.testing.assert_close(logits[i], F.linear(x, tensors[f"{i}.{layers}.weight"]))


def test_names_and_values_survive_the_round_trip():
    tensors = published(3, 2)
    again = MedusaHeads.from_published(tensors, 8, 11).published()
    assert again.keys() == tensors.keys()
    assert all(torch.equal(again[name], tensors[name]) for name in tensors)


def test_no_blocks_at_all_is_a_layout_too():
    assert len(MedusaHeads.from_published({"0.0.weight": torch.ones(11, 8)}, 8, 11)) == 1


def shared(heads: int = 3, layers: int = 1) -> tuple[MedusaHeads, nn.Linear]:
    """Heads that end in a base model's projection, and that projection."""
    projection = randomise(nn.Linear(8, 11, bias=False), seed=5).requires_grad_(False)
    blocks = {name: each for name, each in published(heads, layers).items() if "linear" in name}
    return MedusaHeads.from_published(blocks, 8, 11, projection), projection


@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize("layers", [1, 2])
def test_heads_without_a_projection_end_in_the_base_models(layers, rows):
    stacked, projection = shared(layers=layers)
    own = published(3, layers)
    own |= {f"{head}.{layers}.weight": projection.weight for head in range(3)}
    expected = MedusaHeads.from_published(own, 8, 11)
    hidden_states = torch.randn(rows, 8)
    assert stacked.shares_projection and not expected.shares_projection
    torch.testing.assert_close(stacked(hidden_states), expected(hidden_states))
    torch.testing.assert_close(stacked(hidden_states, 2), expected(hidden_states, 2))
    tokens = torch.tensor([7, 3, 5])
    narrow = stacked.narrowed(tokens)
    torch.testing.assert_close(narrow(hidden_states), expected(hidden_states)[..., tokens])
    torch.testing.assert_close(narrow(hidden_states, 2), expected(hidden_states, 2)[..., tokens])
    assert stacked.published().keys() == {name for name in own if "linear" in name}


def test_the_base_models_projection_is_no_part_of_the_heads():
    """It is neither saved, nor moved, nor trained with them."""
    stacked, projection = shared()
    assert all(each is not projection.weight for each in stacked.parameters())
    assert stacked.state_dict().keys() == {"block_weight", "block_bias"}
    stacked(torch.randn(2, 8)).sum().backward()
    assert stacked.block_weight.grad is not None and projection.weight.grad is None


def test_blocks_alone_need_a_projection():
    blocks = {name: each for name, each in published(2).items() if "linear" in name}
    with pytest.raises(ValueError, match=r"tensor '0\.1\.weight', a projection, is missing"):
        MedusaHeads.from_published(blocks, 8, 11)


@pytest.mark.parametrize("static_shapes", [False, True])
def test_an_engine_takes_heads_that_end_in_its_own_projection(monkeypatch, static_shapes):
    """With its product for few rows, too."""
    monkeypatch.setattr(few_rows, "SMALLEST", 1)
    lm = tiny_llama()
    heads = randomise(MedusaHeads(4, 32, 101, projection=lm.get_output_embeddings()), std=0.05)
    engine = Engine(lm, heads)
    engine.static_shapes = static_shapes
    expected, _ = generate(engine, "greedy", Exact())
    for spec in ("static", "dynamic", "conditional"):
        tokens, steps = generate(engine, spec, Exact())
        assert tokens == expected and len(steps) <= len(tokens)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"1.0.linear.bias": None}, "'1.0.linear.bias' is missing"),
        ({"0.1.weight": None}, "'0.1.weight' is missing"),
        (
            {"0.0.linear.extra": torch.ones(1)},
            "'0.0.linear.extra' is not a tensor of Medusa heads",
        ),
        ({"0.0.weight": torch.ones(11, 8)}, "'0.0.weight' does not belong"),
        (
            {"1.1.weight": torch.ones(12, 8)},
            r"'1.1.weight' is \[12, 8\]; this base model needs \[11, 8\]",
        ),
        ({"0.0.linear.weight": torch.ones(8, 9)}, r"'0.0.linear.weight' is \[8, 9\]"),
        (dict.fromkeys(published(2)), "no tensor"),
        ({"0.1.weight": torch.ones(11, 8, dtype=torch.int8)}, "'0.1.weight' is torch.int8"),
        ({"99999999.0.linear.weight": torch.ones(8, 8)}, "cannot make 100000000 heads"),
    ],
)
def test_a_tensor_that_does_not_fit_is_named(changes, says):
    """`changes`: tensors by name. None: it is left out."""
    tensors = {name: each for name, each in (published(2) | changes).items() if each is not None}
    with pytest.raises(ValueError, match=says):
        MedusaHeads.from_published(tensors, hidden=8, vocab=11)


def shared_heads(projection, heads=4, layers=2):
    return randomise(MedusaHeads(heads, 32, 101, layers, projection), 3)


def with_own_copies(shared, projection):
    """Heads of the usual kind with the same blocks, and a copy of the projection each."""
    layers, heads, hidden, _ = shared.block_weight.shape
    own = MedusaHeads(heads, hidden, projection.out_features, layers)
    own.load_state_dict(
        {**shared.state_dict(), "out_weight": projection.weight.expand(heads, -1, -1)}
    )
    return own


@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize("num_heads", [None, 1, 3])
@pytest.mark.parametrize("bias", [False, True])
def test_heads_that_share_the_base_models_projection(rows, num_heads, bias):
    projection = torch.nn.Linear(32, 101, bias=bias)
    shared = shared_heads(projection)
    hidden = torch.randn(rows, 32, generator=torch.Generator().manual_seed(0))
    expected = with_own_copies(shared, projection)(hidden, num_heads)
    if bias:
        expected = expected + projection.bias
    torch.testing.assert_close(shared(hidden, num_heads), expected)
    tokens = torch.tensor([7, 3, 50])
    torch.testing.assert_close(shared.narrowed(tokens)(hidden, num_heads), expected[..., tokens])


def test_shared_heads_hold_no_projection_and_take_no_memory_for_one():
    projection = torch.nn.Linear(32, 101, bias=False)
    shared = shared_heads(projection)
    assert len(shared) == 4 and shared.shares_projection
    assert {name for name, _ in shared.named_parameters()} == {"block_weight", "block_bias"}
    names = shared.published().keys()
    assert "0.1.linear.weight" in names and "0.2.weight" not in names
    tensors = {name: tensor.clone() for name, tensor in shared.published().items()}
    again = MedusaHeads.from_published(tensors, 32, 101, projection)
    hidden = torch.randn(1, 32)
    torch.testing.assert_close(again(hidden), shared(hidden))


def test_without_a_projection_anywhere_it_is_missing():
    tensors = shared_heads(torch.nn.Linear(32, 101, bias=False)).published()
    with pytest.raises(ValueError, match=r"tensor '0\.2\.weight', a projection, is missing"):
        MedusaHeads.from_published(tensors, 32, 101)


def test_a_projection_of_one_head_alone_is_not_enough():
    projection = torch.nn.Linear(32, 101, bias=False)
    tensors = shared_heads(projection).published() | {"0.2.weight": torch.zeros(101, 32)}
    with pytest.raises(ValueError, match=r"tensor '1\.2\.weight' is missing"):
        MedusaHeads.from_published(tensors, 32, 101, projection)


def test_shared_heads_learn_and_the_projection_does_not():
    projection = torch.nn.Linear(32, 101, bias=False).requires_grad_(False)
    shared = shared_heads(projection)
    shared(torch.randn(3, 32)).logsumexp(-1).sum().backward()
    assert shared.block_weight.grad.abs().sum() > 0 and projection.weight.grad is None
