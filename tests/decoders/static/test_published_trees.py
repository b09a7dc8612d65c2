"""The nine trees of MEDUSA's `medusa_choices.py`.

The expected numbers were taken from its child counts, which ../shared/facts holds for us.
"""

import json
from hashlib import sha256

import pytest

from decoders.static.published_trees import published_trees
from decoders.static.rank_tree import checked_paths, paths_from_child_counts
from tests.helpers.paths import SHARED

# Paths of each depth, and a digest of all rank paths.
TREES = {
    "mc_sim_7b_63": ([10, 28, 23, 2], "777efe164d32b799"),
    "vicuna_7b_stage2": ([10, 23, 23, 7], "ac1b77303fb35bfe"),
    "vicuna_7b_stage1_ablation": ([10, 21, 25, 7], "c0ad9c4459cba7ed"),
    "vicuna_7b_stage1": ([10, 32, 20, 1], "ecdc8d5a1e009750"),
    "vicuna_13b_stage2": ([10, 19, 25, 9], "21804df78d8f02a9"),
    "vicuna_13b_stage1": ([10, 29, 23, 1], "d1d95d4668711fce"),
    "vicuna_33b_stage2": ([10, 24, 24, 5], "96f759f0995eb562"),
    "vicuna_33b_stage1": ([10, 34, 19], "18445a6c83d3743f"),
    "zephyr_stage2": ([10, 27, 23, 3], "e23502832aa1a146"),
}


def test_there_are_nine():
    assert list(published_trees()) == list(TREES)


@pytest.mark.parametrize("name", TREES)
def test_each_is_the_published_one(name):
    paths = published_trees()[name]
    by_depth, digest = TREES[name]
    assert len(paths) == 63 == sum(by_depth)
    assert checked_paths(paths) == paths
    depths = [len(path) for path in paths]
    assert [depths.count(depth) for depth in range(1, max(depths) + 1)] == by_depth
    assert sha256(json.dumps(paths).encode()).hexdigest()[:16] == digest


def test_the_published_child_counts_give_them():
    facts = SHARED.parent / "facts" / "published_trees.json"
    if not facts.exists():
        pytest.skip("the published child counts are not here to compare with (../shared/facts)")
    counts = json.loads(facts.read_text())
    assert published_trees() == {
        name: paths_from_child_counts(each) for name, each in counts.items()
    }
