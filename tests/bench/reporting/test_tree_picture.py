"""Pictures of candidate trees."""

from itertools import combinations, pairwise

import numpy as np
import pytest
from matplotlib.patches import FancyBboxPatch

from bench.reporting import tree_picture
from bench.reporting.tree_picture import tree_figure
from decoders.static.published_trees import published_trees
from decoders.tree import Tree


def boxes(figure) -> list[FancyBboxPatch]:
    """The boxes of the nodes."""
    [axes] = [axes for axes in figure.axes if axes.get_label() == "tree"]
    return [patch for patch in axes.patches if isinstance(patch, FancyBboxPatch)]


def parent_of(name: str, rng: np.random.Generator) -> list[int]:
    if name == "mc_sim_7b_63":
        return Tree.from_paths(published_trees()["mc_sim_7b_63"]).parent.tolist()
    if name == "a single path":
        return [0, *range(11)]
    return [0, *(int(rng.integers(0, node)) for node in range(1, 64))]


@pytest.mark.parametrize("name", ["mc_sim_7b_63", "a single path", "random"])
def test_nothing_overlaps_and_every_label_fits_its_box(name):
    rng = np.random.default_rng(0)
    parent = parent_of(name, rng)
    choices = ["␣the", "x", "$a_b$", "<|endoftext|>", "漢字", "\\frac", "⏎⏎"]
    labels = [str(rng.choice(choices)) for _ in parent]
    figure = tree_figure(parent, labels, [0.5] * len(parent), kept=[0, 1], title="50 % of $x")
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()
    spans = [box.get_window_extent(renderer) for box in boxes(figure)]
    assert len(spans) == len(parent)
    assert not any(a.overlaps(b) for a, b in combinations(spans, 2))
    texts = [
        text
        for text in boxes(figure)[0].axes.texts
        if text.get_text() and not text.get_text().startswith(("depth", "root"))
    ]
    for node, span in enumerate(spans):
        inside = [text.get_window_extent(renderer) for text in texts[3 * node : 3 * node + 3]]
        assert all(span.x0 <= text.x0 and text.x1 <= span.x1 for text in inside), labels[node]
        assert all(a.x1 <= b.x0 for a, b in pairwise(inside)), labels[node]
    page = figure.bbox
    assert all(page.x0 <= span.x0 and span.x1 <= page.x1 for span in spans)
    assert all(page.y0 <= span.y0 and span.y1 <= page.y1 for span in spans)


def test_a_picture_of_a_small_tree_by_hand():
    labels, prob = ["a", "$b", "c", "d"], [1.0, 0.5, 0.25, 0.0001]
    figure = tree_figure([0, 0, 0, 1], labels, prob, kept=[0, 1], title="t")
    tree, mask = figure.axes
    texts = [text.get_text() for text in tree.texts]
    assert texts[:3] == ["root", "depth 1", "depth 2"]
    assert texts[3:9] == ["0", "a", "100", "1", "$b", "50"]
    assert texts[9:] == ["2", "c", "25", "3", "d", "<0.1"]
    ys = [round(box.get_y(), 3) for box in boxes(figure)]
    assert ys[0] == ys[1] == ys[3] < ys[2]  # A first child stands beside its parent.
    attended = mask.images[0].get_array() > 0.5
    assert attended.astype(int).tolist() == [  # The cache first.
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 0, 1, 0],
        [1, 1, 1, 0, 1],
    ]


def test_the_mask_is_that_of_the_decoder():
    """The picture's own mask, against the one that a verify forward uses."""
    rng = np.random.default_rng(1)
    parent = parent_of("random", rng)
    ancestors = Tree.from_parent(parent).ancestors
    expected = np.eye(len(parent), dtype=bool)
    expected[:, 0] = True
    for node, row in enumerate(ancestors.tolist()):
        expected[node, row] = True
    assert (tree_picture.ancestor_mask(parent) == expected).all()
