"""A preallocated KV cache whose slots can be rearranged in place.

Slot s of every layer holds one position's key and value. A verify forward writes its nodes to the
slots after the committed ones. `keep` then moves the accepted path's slots together. Layers of one
shape on one device share one buffer, so that keeping is one indexed copy for all of them.
"""

from collections import defaultdict

import torch
from torch import Tensor
from transformers import Cache, DynamicCache
from transformers.cache_utils import CacheLayerMixin, DynamicLayer


def write_rows(
    keys: Tensor, values: Tensor, slots: Tensor, new_keys: Tensor, new_values: Tensor
) -> None:
    """Write new keys and values [1, heads, rows, size] to slots [rows] of a layer.

    keys, values: [1, heads, all slots, size]. The slots are int64, on the device.
    """
    keys.index_copy_(2, slots, new_keys)
    values.index_copy_(2, slots, new_values)


class _Layer(CacheLayerMixin):
    """One layer's window onto the shared buffer, in the interface that transformers calls."""

    is_sliding = False  # Sliding layers keep every slot. The attention mask does the sliding.

    def __init__(self, owner: "KVCache") -> None:
        super().__init__()
        self.owner = owner
        self.is_initialized = True

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None: ...

    def update(
        self, key_states: Tensor, value_states: Tensor, *args, **kwargs
    ) -> tuple[Tensor, Tensor]:
        if self.owner.static is not None:
            slots, end = self.owner.static
            slots = slots.to(self.keys.device)  # A model may be spread over several devices.
            self.owner.write_rows(self.keys, self.values, slots, key_states, value_states)
        else:
            start, end = self.owner.length, self.owner.length + key_states.shape[-2]
            self.keys[:, :, start:end] = key_states
            self.values[:, :, start:end] = value_states
        return self.keys[:, :, :end], self.values[:, :, :end]

    def get_mask_sizes(self, query: int | Tensor) -> tuple[int, int]:
        # transformers up to 5.3 gives the positions themselves, later releases their number.
        return self.owner.length + (len(query) if isinstance(query, Tensor) else query), 0

    def get_seq_length(self) -> int:
        return self.owner.length

    def get_max_length(self) -> int:
        return self.owner.capacity

    get_max_cache_shape = get_max_length  # The name in earlier releases of transformers.


class KVCache(Cache):
    """Keys and values of `length` committed slots, with room for `capacity`."""

    write_rows = staticmethod(write_rows)  # An engine may have a faster one.

    def __init__(self, probe: DynamicCache) -> None:
        """`probe`: a stock cache that one forward pass has filled.

        It gives the shapes, dtypes and devices of the layers. ValueError where the model keeps any
        other state than keys and values: such a model cannot verify a tree.
        """
        self.length = 0
        self.capacity = 0
        # During a forward of static shapes: the slots [nodes] that it writes, and how many slots it
        # reads, from slot 0 on. None: a forward writes after the committed slots.
        self.static: tuple[Tensor, int] | None = None
        # Keys and values [1, heads, 0, size] of each layer, without a slot.
        self.shapes: list[tuple[Tensor, Tensor]] = []
        for number, layer in enumerate(probe.layers):
            if not isinstance(layer, DynamicLayer) or not layer.is_initialized:
                raise ValueError(
                    f"layer {number} keeps its state in a {type(layer).__name__}, not as keys and "
                    "values"
                )
            self.shapes.append((layer.keys[:, :, :0], layer.values[:, :, :0]))
        super().__init__(layers=[_Layer(self) for _ in self.shapes])
        self._buffers: list[Tensor] = []

    def reserve(self, capacity: int) -> bool:
        """Forget everything, and make room for `capacity` slots. True if this took new memory."""
        self.length = 0
        if capacity <= self.capacity:
            return False
        self.release()  # Before the larger buffers are made, which may fail.
        slots = -(-capacity // 256) * 256
        groups = defaultdict(list)
        for layer, (keys, values) in zip(self.layers, self.shapes, strict=True):
            groups[keys.shape, keys.dtype, keys.device].append((layer, "keys"))
            groups[values.shape, values.dtype, values.device].append((layer, "values"))
        for (shape, dtype, device), members in groups.items():
            size = (len(members), *shape[:2], slots, shape[3])
            buffer = torch.zeros(*size, dtype=dtype, device=device)
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
        """Forget everything in the same memory.

        A NaN that stays in a slot would spoil a static forward: a mask does not hide it.
        """
        self.length = 0
        for buffer in self._buffers:
            buffer.zero_()

    def make_up(self, length: int) -> None:
        """Fill the slots up to `length` with made-up keys and values, and commit them.

        They are those of the committed slots, with noise of the same size.
        """
        for buffer in self._buffers:
            new = torch.arange(self.length, length, device=buffer.device)
            chosen = buffer.index_select(3, new % self.length)
            generator = torch.Generator(buffer.device).manual_seed(0)
            noise = torch.empty_like(chosen).normal_(generator=generator)
            buffer[:, :, :, self.length : length] = chosen + noise * chosen.std()
        self.length = length

    def keep(self, nodes: Tensor, root_slot: int | Tensor) -> None:
        """Copy the slots of `nodes` [kept], in their order, to the slots right after the root's.

        Nodes are counted from the root's slot, an int or [1].
        """
        for buffer in self._buffers:
            source = nodes.to(buffer.device)
            if isinstance(root_slot, int):
                after = buffer[:, :, :, root_slot:]
                after[:, :, :, 1 : 1 + len(nodes)] = after.index_select(3, source)
            else:
                root = root_slot.to(buffer.device)
                target = torch.arange(1, 1 + len(nodes), device=buffer.device)
                buffer.index_copy_(3, root + target, buffer.index_select(3, root + source))
