import pytest
import torch
from torch.nn import functional as F

from decoders.engine import few_rows
from decoders.engine.changes import Changes
from decoders.engine.few_rows import use_few_row_products


@pytest.mark.parametrize("shape", [(1, 1, 40), (1, 3, 40), (5, 40), (40,)])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_products_are_the_linear_layer(shape, bias, dtype):
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(shape, generator=generator).to(dtype)
    weight = torch.randn(24, 40, generator=generator).to(dtype)
    added = torch.randn(24, generator=generator).to(dtype) if bias else None
    found = [few_rows.columns(rows, weight, added)]
    if few_rows.can_pack(dtype):
        found.append(few_rows.packed(rows, few_rows.pack(weight), added))
    # Products in bfloat16 are rounded to 8 bits, at most once in their sum and once with the bias.
    tolerance = 1e-5 if dtype == torch.float32 else 4 * torch.finfo(dtype).eps
    for product in found:
        assert product.shape == (*shape[:-1], 24) and product.is_contiguous()
        torch.testing.assert_close(
            product, F.linear(rows, weight, added), rtol=tolerance, atol=8 * tolerance
        )


def watched(monkeypatch, module: torch.nn.Module, width: int) -> tuple[Changes, list[tuple]]:
    """A small module that uses the products, and what these are called with from now on.

    A call is (name, rows, outputs). `width`: of the module's input.
    """
    used = []
    for name in ("columns", "packed"):
        product = getattr(few_rows, name)

        def note(rows, weight, bias=None, name=name, product=product):
            found = product(rows, weight, bias)
            used.append((name, rows.numel() // width, found.shape[-1]))
            return found

        monkeypatch.setattr(few_rows, name, note)
    monkeypatch.setattr(few_rows, "SMALLEST", 1)
    changes = Changes()
    use_few_row_products(module, lambda: module(torch.zeros(1, width)), changes)
    used.clear()
    return changes, used


def test_the_product_follows_from_the_number_of_rows_and_can_be_switched_off(monkeypatch):
    layer = torch.nn.Linear(8, 6)
    changes, used = watched(monkeypatch, torch.nn.Sequential(layer), 8)
    for rows in (1, 4, 5, 64):
        layer(torch.zeros(rows, 8))
    with changes.off():
        layer(torch.zeros(2, 8))
    layer(torch.zeros(5, 8))
    assert used == [
        ("columns", 1, 6),
        ("columns", 4, 6),
        ("packed", 5, 6),
        ("packed", 64, 6),
        ("packed", 5, 6),
    ]


def test_long_rows_are_multiplied_by_the_packed_copy_even_if_they_are_few(monkeypatch):
    monkeypatch.setattr(few_rows, "NARROW", 7)
    layer = torch.nn.Linear(8, 6)
    _, used = watched(monkeypatch, torch.nn.Sequential(layer), 8)
    for rows in (1, 5):
        layer(torch.zeros(rows, 8))
    assert used == [("packed", 1, 6), ("packed", 5, 6)]


class Gated(torch.nn.Module):
    """Three layers, two of which read the same."""

    def __init__(self, bias: bool = True):
        super().__init__()
        self.gate = torch.nn.Linear(8, 5, bias)
        self.up = torch.nn.Linear(8, 7, bias)
        self.down = torch.nn.Linear(5, 8, bias)

    def forward(self, rows):
        return self.down(self.gate(rows) * self.up(rows).sum(-1, keepdim=True))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("rows", [1, 3, 9])
def test_layers_that_read_the_same_are_one_product(monkeypatch, rows, bias):
    module = Gated(bias)
    given = torch.randn(rows, 8)
    expected = module(given)
    state = {name: value.clone() for name, value in module.state_dict().items()}
    changes, used = watched(monkeypatch, module, 8)
    assert changes.listed() == {"linear layer for few rows": 3}
    for _ in range(2):
        torch.testing.assert_close(module(given), expected)
    assert [outputs for _, _, outputs in used] == [12, 8] * 2
    with changes.off():
        assert module(given).equal(expected)
    assert all(state[name].equal(value) for name, value in module.state_dict().items())


def test_a_joined_layer_never_answers_for_other_rows(monkeypatch):
    """Its part is good for the very tensor that it was computed from, and once."""
    module = Gated()
    plain_up, plain_gate = module.up.forward, module.gate.forward
    changes, _ = watched(monkeypatch, module, 8)
    first, other = torch.randn(2, 8), torch.randn(2, 8)
    module.gate(first)
    with changes.off():
        expected = plain_up(other)
    torch.testing.assert_close(module.up(other), expected)
    module.gate(first)
    first *= 2
    with changes.off():
        expected = plain_gate(first)
    torch.testing.assert_close(module.gate(first), expected)


def test_no_second_copy_of_a_large_model(monkeypatch):
    monkeypatch.setattr(few_rows, "MOST_PACKED", 100)
    layers = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 8))
    rows = torch.randn(3, 8), torch.randn(9, 8)
    expected = [layers(each) for each in rows]
    _, used = watched(monkeypatch, layers, 8)
    for each, wanted in zip(rows, expected, strict=True):
        torch.testing.assert_close(layers(each), wanted)
    assert used == [("columns", 3, 8)] * 2


def test_joined_layers_can_still_be_trained(monkeypatch):
    """With the changes off, as `scripts/train_heads.py` trains a model's own layers."""
    module, plain = Gated(), Gated()
    plain.load_state_dict(module.state_dict())
    with torch.inference_mode():  # As an engine makes the changes.
        changes, _ = watched(monkeypatch, module, 8)
    given = torch.randn(3, 8)
    with changes.off():
        module(given).sum().backward()
    plain(given).sum().backward()
    for ours, expected in zip(module.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, expected.grad)


def test_a_layer_that_is_used_twice_and_one_that_is_never_called_stand_alone(monkeypatch):
    class Odd(Gated):
        def __init__(self):
            super().__init__()
            self.unused = torch.nn.Linear(8, 3)

        def forward(self, rows):
            return self.up(rows) + self.up(rows * 2)

    module, given = Odd(), torch.randn(2, 8)
    expected = module(given)
    monkeypatch.setattr(few_rows, "SMALLEST", 1)
    changes = Changes()
    products = use_few_row_products(module, lambda: module(given), changes)
    assert sorted(product.sizes for product in products) == [[3], [5], [7], [8]]
    torch.testing.assert_close(module(given), expected)


def test_only_large_plain_layers_are_changed():
    class Own(torch.nn.Linear):
        pass

    layers = torch.nn.ModuleList(
        [torch.nn.Linear(256, 128), torch.nn.Linear(256, 127), Own(256, 128)]
    )
    changes = Changes()
    use_few_row_products(layers, lambda: None, changes)
    assert changes.listed() == {"linear layer for few rows": 1} and "forward" in vars(layers[0])


@pytest.mark.parametrize(
    ("dtype", "in_hardware", "changed"),
    [
        (torch.float32, False, True),
        (torch.bfloat16, True, True),
        (torch.bfloat16, False, False),
        (torch.float16, True, False),
    ],
)
def test_a_cpu_changes_the_layers_that_it_multiplies_in_hardware(
    monkeypatch, dtype, in_hardware, changed
):
    monkeypatch.setattr(few_rows, "multiplies_bfloat16", lambda: in_hardware)
    monkeypatch.setattr(few_rows, "pack", torch.clone)  # The packed copy is not multiplied here.
    layers = torch.nn.ModuleList([torch.nn.Linear(256, 128, dtype=dtype)])
    changes = Changes()
    use_few_row_products(layers, lambda: None, changes)
    assert bool(changes.listed()) is changed


def test_no_rows_have_no_products():
    """A static tree of one node asks no head."""
    weight = torch.ones(5, 4)
    assert few_rows.columns(torch.ones(0, 1, 4), weight).shape == (0, 1, 5)
