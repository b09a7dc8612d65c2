"""The tree of the best candidates."""

from itertools import pairwise

import pytest
import torch

from decoders.best_nodes import BestNodes
from decoders.tree import Tree
from tests.helpers.trees import CPU


def candidates(widths: list[int], seed: int, rounded: bool) -> tuple[torch.Tensor, ...]:
    """Random token, score and parent of each candidate. Rounded scores have many ties."""
    generator = torch.Generator().manual_seed(seed)
    score, parent, start = [0.0], [0], 0
    for above, width in pairwise(widths):
        for _ in range(width):
            parent.append(start + int(torch.randint(above, (1,), generator=generator)))
            step = float(torch.rand(1, generator=generator))
            score.append(score[parent[-1]] - (round(step) if rounded else step))
        start += above
    return torch.randperm(len(score), generator=generator), torch.tensor(score), parent


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("nodes", [1, 2, 9, 40])
@pytest.mark.parametrize("levels", [0, 1, 3])
@pytest.mark.parametrize("rounded", [False, True])
def test_they_are_the_highest_scores_and_form_a_tree(seed, nodes, levels, rounded):
    """Candidates of fewer levels than the widths tell are a tree as well."""
    widths = [1, 4, 9, 12]
    token, score, parent = candidates(widths[: levels + 1], seed, rounded)
    draft = BestNodes(nodes, widths, CPU).tree(token, score, torch.tensor(parent))
    chosen = sorted(range(len(score)), key=lambda each: -score[each])[:nodes]
    assert draft.token.tolist() == [int(token[each]) for each in chosen]
    assert draft.log_prob.tolist() == [float(score[each]) for each in chosen]
    plain = Tree.from_parent([chosen.index(parent[each]) for each in chosen])
    assert draft.tree.parent.equal(plain.parent) and draft.tree.depth.equal(plain.depth)
    assert draft.tree.max_depth == levels
    assert draft.tree.ancestors[:, : plain.max_depth].equal(plain.ancestors)
    itself = torch.arange(len(plain)).unsqueeze(1)
    assert (draft.tree.ancestors[:, plain.max_depth :] == itself).all()
