from decoders.accept import Exact
from tests.helpers.steps import generate


def test_greedy_is_one_token_a_step(tiny_model):
    tokens, steps = generate(tiny_model, "greedy", Exact(), tokens=25)
    assert [len(step.tokens) for step in steps] == [1] * 25 and len(tokens) == 25
    assert [step.nodes for step in steps] == [1] * 25
