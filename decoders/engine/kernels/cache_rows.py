"""A layer's new keys and values, written to their slots of the cache by one Triton kernel."""

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _write(
    keys, values, slots, new_keys, new_values,
    keys_head, keys_slot, values_head, values_slot,
    new_keys_head, new_keys_row, new_values_head, new_values_row,
    KEY_SIZE: tl.constexpr, VALUE_SIZE: tl.constexpr, ENTRIES: tl.constexpr,
):  # fmt: skip
    """Program (row, head): one key and one value. `*_head`, `*_slot`, `*_row` are strides."""
    row, head = tl.program_id(0), tl.program_id(1).to(tl.int64)  # Offsets may be large.
    slot = tl.load(slots + row)
    entry = tl.arange(0, ENTRIES)
    key = tl.load(
        new_keys + head * new_keys_head + row * new_keys_row + entry, mask=entry < KEY_SIZE
    )
    value = tl.load(
        new_values + head * new_values_head + row * new_values_row + entry, mask=entry < VALUE_SIZE
    )
    tl.store(keys + head * keys_head + slot * keys_slot + entry, key, mask=entry < KEY_SIZE)
    tl.store(
        values + head * values_head + slot * values_slot + entry, value, mask=entry < VALUE_SIZE
    )


def write_rows(
    keys: Tensor, values: Tensor, slots: Tensor, new_keys: Tensor, new_values: Tensor
) -> None:
    """As `decoders.model.cache.write_rows`. The last dimension of keys and values is dense."""
    new_keys, new_values = (
        each if each.stride(-1) == 1 else each.contiguous() for each in (new_keys, new_values)
    )
    _, heads, rows, key_size = new_keys.shape
    value_size = new_values.shape[3]
    with torch.cuda.device_of(keys):
        _write[rows, heads](
            keys, values, slots, new_keys, new_values,
            keys.stride(1), keys.stride(2), values.stride(1), values.stride(2),
            new_keys.stride(1), new_keys.stride(2), new_values.stride(1), new_values.stride(2),
            KEY_SIZE=key_size, VALUE_SIZE=value_size,
            ENTRIES=triton.next_power_of_2(max(key_size, value_size)),
        )  # fmt: skip
