import inspect

import pytest
import torch

from decoders.accept import Exact
from decoders.budget import Budgeted
from decoders.decoder import Decoder
from decoders.draft_check import Checked
from decoders.drafter import Drafter, Wrapper
from tests.helpers.steps import FREE, bound, made, steps_of, turn


def test_a_wrapper_passes_on_everything_that_the_loop_may_ask():
    """But for `draft_depth`, which is set, and always on the innermost drafter."""
    asked = {name for name in vars(Drafter) if not name.startswith("_")} - {"draft_depth"}
    assert asked <= vars(Wrapper).keys()


@pytest.mark.parametrize(
    "spec", ["greedy", "static", "dynamic:nodes=9", "dynamic:nodes=auto", "conditional:nodes=auto"]
)
def test_a_wrapped_drafter_takes_the_same_steps(tiny_model, spec):
    expected = steps_of(tiny_model, spec)
    decoder = bound(tiny_model, spec, FREE)
    steps = list(decoder.decode(*turn(60, Exact()), watched_by=Wrapper))
    assert [(step.tokens, step.nodes) for step in steps] == [
        (step.tokens, step.nodes) for step in expected
    ]
    wrapped = Wrapper(decoder)
    passed_on = ("reads_prompt", "reads_prompt_logits", "captures")
    for name in (*passed_on, "max_nodes", "max_depth", "slots_beyond", "kind"):
        assert getattr(wrapped, name) == getattr(decoder, name)
    assert wrapped.kinds() == decoder.kinds() and wrapped.sizes(9) == decoder.sizes(9)


def test_a_wrapper_is_set_up_with_or_after_what_it_wraps(tiny_model):
    decoder = made("dynamic")
    wrapped = Wrapper(decoder)
    wrapped.setup(tiny_model)
    assert wrapped.model is decoder.model is tiny_model
    # A graph of the one must not be taken for a graph of the other.
    assert Wrapper(decoder).setup_key not in (decoder.setup_key, wrapped.setup_key)


def test_a_drafter_needs_to_propose_and_nothing_else(tiny_model):
    decoder = Decoder()
    decoder.setup(tiny_model)
    with pytest.raises(NotImplementedError):
        decoder.propose(torch.tensor([1]), torch.zeros(1, 32))
    for name in ("start", "observe", "before_step", "after_step", "become"):
        assert inspect.isfunction(getattr(Drafter, name))
    assert (decoder.kind, decoder.kinds(), decoder.sizes(7)) == (None, (None,), (7,))


def test_every_wrapper_of_ours_is_one():
    assert issubclass(Checked, Wrapper) and issubclass(Budgeted, Wrapper)
