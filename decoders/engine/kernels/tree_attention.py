"""Attention of a tree's few rows over many committed positions, as two Triton kernels.

A step has too few rows to keep a GPU busy with one program a head. So the positions are cut into
parts, and each program reads one part for one KV head. It leaves the sum of its weighted
values, and the largest score and the sum of weights that a softmax needs. The second kernel adds up
the parts.

All query heads that share a KV head are computed together, so that its keys are read once. One
query row of one of these heads is a lane: lane = row * group + index of the head in its group.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

PROGRAMS = 264  # Programs wanted at once: two for each multiprocessor of an H100.
SMALLEST = 16  # Rows and columns of a product.
# Slots that a program reads at once. A tile of keys and one of values must fit in shared memory.
SLOTS_AT_ONCE = {torch.float16: 64, torch.bfloat16: 64, torch.float32: 32}
STAGES = 2  # Tiles that are loaded ahead. A part has few of them.
# The score of a position that is masked for a lane. A whole part may be masked. The score is
# finite, so that the part's largest score is finite too. It is so small that such a part gets
# weight 0.
MASKED_SCORE = tl.constexpr(-1e30)


@triton.jit
def _attend_part(
    query, keys, values, mask, committed, sums, largest, weights,
    scale, lanes, nodes,
    query_head, query_row, keys_head, keys_slot, values_head, values_slot, mask_row,
    GROUP: tl.constexpr, SIZE: tl.constexpr, ENTRIES: tl.constexpr,
    LANES: tl.constexpr, SLOTS: tl.constexpr,
):  # fmt: skip
    """Program (head, part, block): LANES lanes of one KV head, over one part of its slots.

    sums: [heads, parts, lanes, SIZE], largest, weights: [heads, parts, lanes], all float32.
    `*_head`, `*_row`, `*_slot` are strides. ENTRIES: SIZE, rounded up to a power of 2.
    """
    head, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    parts = tl.num_programs(1)
    lane = tl.program_id(2) * LANES + tl.arange(0, LANES)
    entry = tl.arange(0, ENTRIES)
    is_lane, is_entry = lane < lanes, entry < SIZE
    row = lane // GROUP
    query_of_lane = query + (head * GROUP + lane % GROUP) * query_head + row * query_row
    is_real = is_lane[:, None] & is_entry[None, :]
    asked = tl.load(query_of_lane[:, None] + entry[None, :], mask=is_real, other=0.0)

    root = tl.load(committed).to(tl.int32)
    end = root + nodes
    span = tl.cdiv(tl.cdiv(end, SLOTS), parts) * SLOTS
    begin = part * span
    stop = tl.minimum(begin + span, end)
    best = tl.full([LANES], float("-inf"), tl.float32)
    weight = tl.zeros([LANES], tl.float32)
    total = tl.zeros([LANES, ENTRIES], tl.float32)
    for at in range(begin, stop, SLOTS):
        slot = at + tl.arange(0, SLOTS)
        is_used = slot < stop
        is_read = is_used[:, None] & is_entry[None, :]
        key_at = keys + head * keys_head + slot[:, None] * keys_slot + entry[None, :]
        key = tl.load(key_at, mask=is_read, other=0.0)
        score = tl.dot(asked, tl.trans(key), input_precision="ieee") * scale
        # Every lane sees the committed slots and the root, so the mask is read only after the root.
        in_tree = is_lane[:, None] & ((slot > root) & is_used)[None, :]
        mask_at = mask + row[:, None] * mask_row + slot[None, :]
        score = tl.where(tl.load(mask_at, mask=in_tree, other=0.0) < 0, MASKED_SCORE, score)
        score = tl.where(is_used[None, :], score, float("-inf"))
        better = tl.maximum(best, tl.max(score, 1))
        share = tl.exp(score - better[:, None])
        rescaled = tl.exp(best - better)
        value_at = values + head * values_head + slot[:, None] * values_slot + entry[None, :]
        value = tl.load(value_at, mask=is_read, other=0.0)
        total = total * rescaled[:, None]
        total += tl.dot(share.to(value.dtype), value, input_precision="ieee")
        weight = weight * rescaled + tl.sum(share, 1)
        best = better
    place = (head * parts + part) * lanes + lane
    tl.store(largest + place, best, mask=is_lane)
    tl.store(weights + place, weight, mask=is_lane)
    tl.store(sums + place[:, None] * SIZE + entry[None, :], total, mask=is_real)


@triton.jit
def _add_parts(
    sums, largest, weights, out, parts, lanes,
    GROUP: tl.constexpr, SIZE: tl.constexpr, ENTRIES: tl.constexpr,
):  # fmt: skip
    """Program (head, lane): the attention of one lane. out: [rows, query heads, SIZE]."""
    head, lane = tl.program_id(0).to(tl.int64), tl.program_id(1)
    entry = tl.arange(0, ENTRIES)
    is_entry = entry < SIZE
    best = float("-inf")
    weight = 0.0
    total = tl.zeros([ENTRIES], tl.float32)
    for part in range(parts):  # The first one is never empty.
        place = (head * parts + part) * lanes + lane
        found = tl.load(largest + place)
        better = tl.maximum(best, found)
        rescaled, share = tl.exp(best - better), tl.exp(found - better)
        weight = weight * rescaled + tl.load(weights + place) * share
        added = tl.load(sums + place * SIZE + entry, mask=is_entry, other=0.0)
        total = total * rescaled + added * share
        best = better
    out_at = (lane // GROUP * tl.num_programs(0) + head) * GROUP + lane % GROUP
    tl.store(out + out_at * SIZE + entry, total / weight, mask=is_entry)


def tree_attention(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    mask: Tensor,
    committed: Tensor,
    nodes: int,
    scale: float,
) -> Tensor:
    """As `plain_tree_attention`. The last dimension of query, keys, values and mask is dense."""
    query_heads, rows, size = query.shape
    heads, width = keys.shape[:2]
    group = query_heads // heads
    lanes = rows * group
    lanes_at_once = min(64, max(SMALLEST, triton.next_power_of_2(lanes)))
    slots_at_once = SLOTS_AT_ONCE[query.dtype]
    blocks = triton.cdiv(lanes, lanes_at_once)
    pieces = triton.cdiv(width, slots_at_once)
    parts = triton.cdiv(pieces, triton.cdiv(pieces * heads * blocks, PROGRAMS))
    entries = max(SMALLEST, triton.next_power_of_2(size))
    sums = query.new_empty(heads, parts, lanes, size, dtype=torch.float32)
    largest, weights = query.new_empty(2, heads, parts, lanes, dtype=torch.float32)
    out = query.new_empty(rows, query_heads, size)
    with torch.cuda.device_of(query):
        _attend_part[heads, parts, blocks](
            query, keys, values, mask, committed, sums, largest, weights,
            scale, lanes, nodes,
            query.stride(0), query.stride(1), keys.stride(0), keys.stride(1),
            values.stride(0), values.stride(1), mask.stride(0),
            GROUP=group, SIZE=size, ENTRIES=entries, LANES=lanes_at_once, SLOTS=slots_at_once,
            num_stages=STAGES,
        )  # fmt: skip
        _add_parts[heads, lanes](
            sums, largest, weights, out, parts, lanes, GROUP=group, SIZE=size, ENTRIES=entries
        )
    return out
