import pytest
import torch
from torch.nn import functional as F

from decoders.model.heads import MedusaHeads
from tests.helpers.models import randomise


def published(
    heads: int, layers: int = 1, hidden: int = 8, vocab: int = 11
) -> dict[str, torch.Tensor]:
    stacked = randomise(MedusaHeads(heads, hidden, vocab, layers))
    stacked.block_bias.data.normal_(generator=torch.Generator().manual_seed(3))
    return {name: tensor.clone() for name, tensor in stacked.published().items()}


@pytest.mark.parametrize(("heads", "layers"), [(1, 1), (4, 1), (3, 2)])
def test_stacked_heads_compute_what_the_published_ones_do(heads, layers):
    tensors = published(heads, layers)
    stacked = MedusaHeads.from_published(tensors, hidden=8, vocab=11)
    rows = torch.randn(5, 8, generator=torch.Generator().manual_seed(1))
    logits = stacked(rows)
    assert logits.shape == (heads, 5, 11)
    for i in range(heads):
        x = rows
        for j in range(layers):
            x = x + F.silu(
                F.linear(x, tensors[f"{i}.{j}.linear.weight"], tensors[f"{i}.{j}.linear.bias"])
            )
        torch.testing.assert_close(logits[i], F.linear(x, tensors[f"{i}.{layers}.weight"]))


def test_names_and_values_survive_the_round_trip():
    tensors = published(3, 2)
    again = MedusaHeads.from_published(tensors, 8, 11).published()
    assert again.keys() == tensors.keys()
    assert all(torch.equal(again[name], tensors[name]) for name in tensors)


def test_no_blocks_at_all_is_a_layout_too():
    assert len(MedusaHeads.from_published({"0.0.weight": torch.ones(11, 8)}, 8, 11)) == 1


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t.pop("1.0.linear.bias"), "'1.0.linear.bias' is missing"),
        (lambda t: t.pop("0.1.weight"), "'0.1.weight' is missing"),
        (
            lambda t: t.update({"0.0.linear.extra": torch.ones(1)}),
            "'0.0.linear.extra' is not a tensor of Medusa heads",
        ),
        (lambda t: t.update({"0.0.weight": torch.ones(11, 8)}), "'0.0.weight' does not belong"),
        (
            lambda t: t.update({"1.1.weight": torch.ones(12, 8)}),
            r"'1.1.weight' is \[12, 8\]; this base model needs \[11, 8\]",
        ),
        (
            lambda t: t.update({"0.0.linear.weight": torch.ones(8, 9)}),
            r"'0.0.linear.weight' is \[8, 9\]",
        ),
        (lambda t: t.clear(), "no tensor"),
        (
            lambda t: t.update({"0.1.weight": torch.ones(11, 8, dtype=torch.int8)}),
            "'0.1.weight' is torch.int8",
        ),
        (
            lambda t: t.update({"99999999.0.linear.weight": torch.ones(8, 8)}),
            "cannot make 100000000 heads",
        ),
    ],
)
def test_a_tensor_that_does_not_fit_is_named(change, says):
    tensors = published(2)
    change(tensors)
    with pytest.raises(ValueError, match=says):
        MedusaHeads.from_published(tensors, hidden=8, vocab=11)
