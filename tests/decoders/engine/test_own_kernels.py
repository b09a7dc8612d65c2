"""Kernels are used where they agree with plain PyTorch, and left out where they do not."""

import warnings

import pytest
import torch

from decoders.engine import own_kernels
from decoders.engine.engine import Engine
from decoders.engine.own_kernels import WRITE_PURPOSE, use_own_kernels
from decoders.engine.tree_attention import ATTENTION_PURPOSE
from tests.helpers.kernels import DEVICE, NEEDS_TRITON
from tests.helpers.models import tiny_heads, tiny_llama
from tests.helpers.steps import steps_of, tokens_of


def use(engine: Engine) -> set[str]:
    """Use the kernels, and return the purposes of what was changed."""
    before = set(engine.changes.listed())
    config = engine.lm.config
    use_own_kernels(config, engine.masks, engine.cache, engine.changes)
    return set(engine.changes.listed()) - before


def test_without_triton_nothing_is_changed(tiny_model, monkeypatch):
    monkeypatch.setattr(own_kernels, "find_spec", lambda name: None)
    assert not use(tiny_model)


@pytest.mark.skipif(DEVICE == "cuda", reason="for a machine without CUDA")
def test_a_cpu_uses_none(monkeypatch):
    def use_kernels(*_):
        raise AssertionError("kernels on a CPU")

    monkeypatch.setattr("decoders.engine.engine.use_own_kernels", use_kernels)
    monkeypatch.setattr("decoders.engine.engine.fuse", lambda *_: None)
    Engine(tiny_llama(), fused=True)


def test_a_model_answers_the_same_with_them():
    pytest.importorskip("triton", reason=NEEDS_TRITON)
    engine = Engine(tiny_llama().to(DEVICE), tiny_heads())
    engine.static_shapes = True
    expected = tokens_of(steps_of(engine, "dynamic:nodes=16", 20))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert use(engine) == {ATTENTION_PURPOSE, WRITE_PURPOSE}
    engine.graphs.clear()  # On CUDA they hold what was in use before.
    assert tokens_of(steps_of(engine, "dynamic:nodes=16", 20)) == expected
    with engine.as_loaded():
        assert "write_rows" not in vars(engine.cache)


@pytest.mark.parametrize("how", ["fails", "differs"])
def test_a_kernel_that_does_not_work_here_is_left_out_with_a_warning(monkeypatch, how):
    module = pytest.importorskip("decoders.engine.kernels.cache_rows", reason=NEEDS_TRITON)

    def write_nothing(*_):
        if how == "fails":
            raise RuntimeError("out of resource: shared memory")

    monkeypatch.setattr(module, "write_rows", write_nothing)
    with pytest.warns(UserWarning, match=f"{WRITE_PURPOSE}: this kernel is not used here"):
        assert use(Engine(tiny_llama().to(DEVICE), tiny_heads())) == {ATTENTION_PURPOSE}


def test_a_difference_is_found(tiny_model):
    """Of a single row of a single head."""

    def one_row_off(*given):
        out = own_kernels.plain_tree_attention(*given)
        out[-1, -1] += 0.1
        return out

    heads = tiny_model.lm.config.num_attention_heads
    own_kernels.check_tree_attention(own_kernels.plain_tree_attention, heads, tiny_model.cache)
    with pytest.raises(AssertionError):
        own_kernels.check_tree_attention(one_row_off, heads, tiny_model.cache)
    with pytest.raises(AssertionError):
        own_kernels.check_write_rows(lambda *_: None, tiny_model.cache)
    assert torch.is_grad_enabled()
