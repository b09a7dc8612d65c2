import pytest
import torch

from decoders.accept import Exact
from tests.helpers.models import PROMPT
from tests.helpers.steps import generate


@pytest.mark.parametrize("static_shapes", [False, True])
@pytest.mark.parametrize("spec", ["static", "dynamic", "conditional"])
def test_the_cache_after_a_commit_is_the_cache_of_plain_text(tiny_model, spec, static_shapes):
    """Key and value of every committed token, and its position, as if tokens were read in order."""
    tiny_model.static_shapes = static_shapes
    tokens, _ = generate(tiny_model, spec, Exact(), tokens=30)
    layers = tiny_model.cache.layers
    kept = [(layer.keys[:, :, :40].clone(), layer.values[:, :, :40].clone()) for layer in layers]
    tiny_model.prefill(torch.tensor([*PROMPT, *tokens]), room=0)
    for (keys, values), layer in zip(kept, layers, strict=True):
        torch.testing.assert_close(keys, layer.keys[:, :, :40], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(values, layer.values[:, :, :40], rtol=1e-4, atol=1e-5)


def test_a_cache_that_found_no_memory_is_made_anew(tiny_model, monkeypatch):
    expected = generate(tiny_model, "dynamic", Exact(), tokens=20)[0]

    def no_memory(*size, **about):
        raise torch.OutOfMemoryError("full")

    with monkeypatch.context() as full:
        full.setattr(torch, "zeros", no_memory)
        with pytest.raises(torch.OutOfMemoryError):
            tiny_model.cache.reserve(5000)
    assert tiny_model.cache.capacity == 0
    assert generate(tiny_model, "dynamic", Exact(), tokens=20)[0] == expected


def test_room_that_is_there_is_used_again(tiny_model):
    cache = tiny_model.cache
    cache.reserve(10)
    assert cache.capacity == 256
    buffers = [buffer.data_ptr() for buffer in cache._buffers]
    assert not cache.reserve(256)
    assert [buffer.data_ptr() for buffer in cache._buffers] == buffers
    assert cache.reserve(257) and cache.capacity == 512
    cache.release()
    assert cache.capacity == 0 and not cache._buffers
    assert all(layer.keys is layer.values is None for layer in cache.layers)


def test_wiping_leaves_nothing_in_the_same_memory(tiny_model):
    cache = tiny_model.cache
    tiny_model.prefill(PROMPT, room=9)
    buffers = [buffer.data_ptr() for buffer in cache._buffers]
    assert any(buffer.any() for buffer in cache._buffers)
    tiny_model.wipe()
    assert not any(buffer.any() for buffer in cache._buffers) and cache.length == 0
    assert [buffer.data_ptr() for buffer in cache._buffers] == buffers
