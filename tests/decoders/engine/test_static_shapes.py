import pytest
import torch

from decoders.accept import Exact, Sample
from decoders.engine.engine import Engine
from decoders.engine.static_shapes import DraftPlaces, bucket, buckets
from decoders.tree import Draft, Tree
from tests.helpers.models import FAMILIES, randomise, tiny_heads, tiny_llama
from tests.helpers.steps import steps_of, tokens_of

NEEDING_NO_HEADS = ("recycling", "suffix", "draft:model=tiny", "conditional:nodes=16:suffix=6")


@pytest.mark.parametrize(
    "family", ["llama", "llama-eager", "mistral-window", "gemma3-window", "gpt2"]
)
def test_static_shapes_give_the_same_tokens(family):
    """Across the border of a bucket, where a window slides, and near the end of the context."""
    model = Engine(randomise(FAMILIES[family]()), tiny_heads())
    for spec in ("greedy", "static", "dynamic:nodes=16", "conditional:nodes=16", *NEEDING_NO_HEADS):
        for rule in (Exact(), Sample(0.8, seed=3)):
            model.static_shapes = False
            expected = tokens_of(steps_of(model, spec, 140, rule))
            model.static_shapes = True
            assert tokens_of(steps_of(model, spec, 140, rule)) == expected, (spec, rule)


def test_a_longer_text_takes_the_next_bucket():
    model = Engine(tiny_llama(max_position_embeddings=600), tiny_heads())
    expected = tokens_of(steps_of(model, "dynamic:nodes=16", 500))
    model.static_shapes = True
    widths, forward = set(), model.static_forward

    def watched(placed, first):
        widths.add(model.shape_of(placed)[-1])
        return forward(placed, first)

    model.static_forward = watched
    assert tokens_of(steps_of(model, "dynamic:nodes=16", 500)) == expected
    assert widths == {256, 384, 512, 768}


def addresses(places: DraftPlaces) -> dict[tuple[int, int], tuple[int, int]]:
    """The addresses of each shape's tokens and log probabilities."""
    return {
        shape: (placed.token.data_ptr(), placed.log_prob.data_ptr())
        for shape, (_, placed) in places._places.items()
    }


def test_a_static_step_reads_the_same_addresses_every_time(tiny_model):
    """What a captured graph needs."""
    tiny_model.static_shapes = True
    steps_of(tiny_model, "dynamic:nodes=16")
    before = addresses(tiny_model._places)
    assert (16, 4) in before
    steps_of(tiny_model, "dynamic:nodes=16")
    assert addresses(tiny_model._places) == before


def test_a_placed_draft_is_the_same_draft_where_all_of_its_shape_lie():
    places = DraftPlaces(torch.device("cpu"))
    log_prob = torch.tensor([0.0, -1.0, -2.0, -3.0])
    first, second = (
        Draft(Tree.from_parent(parent), torch.tensor(tokens), log_prob)
        for parent, tokens in (([0, 0, 0, 1], [9, 5, 6, 7]), ([0, 0, 1, 0], [8, 1, 2, 3]))
    )
    placed = places.place(first)
    assert placed.token.tolist() == [9, 5, 6, 7] and placed.tree.parent.tolist() == [0, 0, 0, 1]
    assert placed.tree.depth.equal(first.tree.depth)
    assert placed.tree.ancestors.equal(first.tree.ancestors)
    assert placed.log_prob.equal(log_prob) and placed.log_prob is not log_prob
    again = places.place(second)
    assert again.token.data_ptr() == placed.token.data_ptr()
    assert again.log_prob.data_ptr() == placed.log_prob.data_ptr()
    assert again.token.tolist() == [8, 1, 2, 3] and again.tree.parent.tolist() == [0, 0, 1, 0]
    # A draft that lies there already stays what it is.
    assert places.place(again).token.tolist() == [8, 1, 2, 3]
    other = places.place(Draft.of_root(torch.tensor([4])))
    assert other.token.data_ptr() != placed.token.data_ptr()
    assert other.log_prob is None
    assert set(addresses(places)) == {(4, 2), (1, 0)}


@pytest.mark.parametrize("slots", [1, 255, 256, 257, 384, 385, 512, 513, 768, 769, 1024, 5000])
def test_a_bucket_is_the_least_width_that_holds_the_slots(slots):
    widths = list(buckets(10_000))
    assert widths[:6] == [256, 384, 512, 768, 1024, 1536]
    assert bucket(slots) == min(width for width in widths if width >= slots)
    assert list(buckets(slots))[-1] == bucket(slots)
