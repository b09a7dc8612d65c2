"""The nine static trees that MEDUSA publishes."""

from functools import cache

from decoders.static.rank_tree import paths_from_child_counts
from decoders.tree import RankPath

# MEDUSA's `medusa_choices.py`: the number of children of every node, breadth first. Trailing zeros
# are cut.
_PUBLISHED = {
    "mc_sim_7b_63": [
        10, 10, 7, 3, 2, 1, 1, 1, 1, 1, 1, 10, 3, 2, 1, 1, 1, 1, 1, 0, 0, 2, 0, 0, 0, 0, 0, 0, 1, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 2,
    ],
    "vicuna_7b_stage2": [
        10, 10, 5, 2, 2, 1, 1, 1, 1, 0, 0, 9, 4, 2, 1, 1, 1, 0, 0, 0, 0, 3, 1, 0, 0, 0, 1, 0, 0, 0,
        0, 0, 0, 0, 4, 1, 1, 0, 0, 0, 0, 0, 0, 1,
    ],
    "vicuna_7b_stage1_ablation": [
        10, 10, 4, 2, 2, 1, 1, 1, 0, 0, 0, 10, 4, 2, 1, 1, 1, 0, 0, 0, 0, 3, 1, 0, 0, 1, 0, 1, 0, 0,
        0, 0, 4, 1, 1, 0, 0, 0, 0, 0, 0, 0, 1,
    ],
    "vicuna_7b_stage1": [
        10, 10, 7, 4, 3, 2, 2, 1, 1, 1, 1, 9, 3, 2, 1, 1, 1, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 1, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1,
    ],
    "vicuna_13b_stage2": [
        10, 10, 4, 2, 1, 1, 1, 0, 0, 0, 0, 10, 4, 2, 1, 1, 1, 0, 0, 0, 0, 3, 1, 0, 0, 1, 0, 1, 0, 0,
        4, 2, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1,
    ],
    "vicuna_13b_stage1": [
        10, 10, 7, 4, 2, 2, 1, 1, 1, 1, 0, 10, 4, 2, 1, 1, 1, 0, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 1, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1,
    ],
    "vicuna_33b_stage2": [
        10, 10, 5, 3, 2, 1, 1, 1, 1, 0, 0, 10, 4, 2, 1, 1, 1, 0, 0, 0, 0, 3, 1, 0, 0, 0, 1, 0, 0, 0,
        0, 0, 0, 0, 0, 3, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1,
    ],
    "vicuna_33b_stage1": [
        10, 10, 8, 5, 3, 2, 2, 1, 1, 1, 1, 9, 3, 2, 1, 1, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 1,
    ],
    "zephyr_stage2": [
        10, 10, 6, 4, 2, 2, 1, 1, 1, 0, 0, 10, 4, 2, 1, 1, 1, 0, 0, 0, 0, 2, 1, 0, 0, 0, 0, 1, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 2, 1,
    ],
}  # fmt: skip


@cache
def published_trees() -> dict[str, list[RankPath]]:
    """The nine static trees that MEDUSA publishes, by name."""
    return {name: paths_from_child_counts(counts) for name, counts in _PUBLISHED.items()}
