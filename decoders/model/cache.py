"""A preallocated KV cache whose slots can be rearranged in place.

Slot s of every layer holds one position's key and value. A verify forward writes its nodes to the slots behind the
committed ones; `keep` then moves the accepted path's slots together. Layers of one shape on one device share one buffer,
so that keeping is one indexed copy for all of them.
"""

from collections import defaultdict

import torch
from torch import Tensor
from transformers import Cache, DynamicCache
from transformers.cache_utils import CacheLayerMixin, DynamicLayer


class _Layer(CacheLayerMixin):
    """One layer's window onto the shared buffer, in the interface that transformers' models call."""

    is_sliding = False  # sliding layers keep every slot; the attention mask does the sliding

    def __init__(self, owner: "KVCache") -> None:
        super().__init__()
        self.owner = owner
        self.is_initialized = True

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None: ...

    def update(
        self, key_states: Tensor, value_states: Tensor, *args, **kwargs
    ) -> tuple[Tensor, Tensor]:
        if self.owner.fixed is not None:
            slots, end = self.owner.fixed
            self.keys.index_copy_(2, slots, key_states)
            self.values.index_copy_(2, slots, value_states)
        else:
            start, end = self.owner.length, self.owner.length + key_states.shape[-2]
            self.keys[:, :, start:end] = key_states
            self.values[:, :, start:end] = value_states
        return self.keys[:, :, :end], self.values[:, :, :end]

    def get_mask_sizes(self, query: int | Tensor) -> tuple[int, int]:
        # Releases of transformers up to 5.3 give the positions themselves, later ones how many they are.
        return self.owner.length + (len(query) if isinstance(query, Tensor) else query), 0

    def get_seq_length(self) -> int:
        return self.owner.length

    def get_max_length(self) -> int:
        return self.owner.capacity

    get_max_cache_shape = get_max_length  # its name in earlier releases of transformers


class KVCache(Cache):
    """Keys and values of `length` committed slots, with room for `capacity`.

    The layers' shapes, dtypes and devices are learned from `probe`, a stock cache that one forward pass has filled.
    ValueError where the model keeps any other state than keys and values: such a model cannot verify a tree.
    """

    def __init__(self, probe: DynamicCache) -> None:
        self.length = 0
        self.capacity = 0
        # While a forward has static shapes: the slots [nodes] it writes, and the width (slots from 0) that it reads.
        self.fixed: tuple[Tensor, int] | None = None
        self._shapes: list[tuple[Tensor, Tensor]] = []
        for at, layer in enumerate(probe.layers):
            if not isinstance(layer, DynamicLayer) or not layer.is_initialized:
                raise ValueError(
                    f"layer {at} keeps its state in a {type(layer).__name__}, not as keys and values"
                )
            self._shapes.append((layer.keys[:, :, :0], layer.values[:, :, :0]))
        super().__init__(layers=[_Layer(self) for _ in self._shapes])
        self._buffers: list[Tensor] = []

    def reserve(self, capacity: int) -> bool:
        """Forget everything and make room for `capacity` slots; whether that took new buffers."""
        self.length = 0
        if capacity <= self.capacity:
            return False
        self.release()  # before the larger buffers are made, which may fail
        slots = -(-capacity // 256) * 256
        groups = defaultdict(list)
        for layer, (keys, values) in zip(self.layers, self._shapes, strict=True):
            groups[keys.shape, keys.dtype, keys.device].append((layer, "keys"))
            groups[values.shape, values.dtype, values.device].append((layer, "values"))
        for (shape, dtype, device), members in groups.items():
            buffer = torch.zeros(
                len(members), *shape[:2], slots, shape[3], dtype=dtype, device=device
            )
            self._buffers.append(buffer)
            for view, (layer, name) in zip(buffer, members, strict=True):
                setattr(layer, name, view)
        self.capacity = slots
        return True

    def release(self) -> None:
        """Forget everything, and give the memory back."""
        self.length = self.capacity = 0
        self._buffers = []
        for layer in self.layers:
            layer.keys = layer.values = None

    def wipe(self) -> None:
        """Forget everything, NaN that a mask would not hide included, in the same memory."""
        self.length = 0
        for buffer in self._buffers:
            buffer.zero_()

    def keep(self, nodes: Tensor, start: int | Tensor) -> None:
        """Copy the entries of `nodes` [kept], counted from the root's slot `start` (an int, or [1]), to those behind it.

        They keep the order of `nodes`.
        """
        for buffer in self._buffers:
            there = nodes.to(buffer.device)
            if isinstance(start, int):
                behind = buffer[:, :, :, start:]
                behind[:, :, :, 1 : 1 + len(nodes)] = behind.index_select(3, there)
            else:
                at = start.to(buffer.device)
                slots = torch.arange(1, 1 + len(nodes), device=buffer.device)
                buffer.index_copy_(3, at + slots, buffer.index_select(3, at + there))
