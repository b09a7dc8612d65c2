import pytest

from decoders.spec import Spec


@pytest.mark.parametrize(
    "text", ["greedy", "dynamic:nodes=32:topk=8", "static:tree=a=b.json", "static:tree=", ""]
)
def test_a_spec_is_printed_as_it_was_parsed(text):
    assert str(Spec.parse(text)) == text


def test_a_value_may_hold_an_equals_sign():
    assert Spec.parse("static:tree=a=b.json") == Spec("static", {"tree": "a=b.json"})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("dynamic:nodes", "decoder 'dynamic:nodes': 'nodes' is not option=value"),
        ("dynamic:", "decoder 'dynamic:': '' is not option=value"),
        ("dynamic:nodes=3:nodes=3", "option nodes stands twice"),
    ],
)
def test_what_is_no_spec_says_why(text, says):
    with pytest.raises(ValueError, match=says):
        Spec.parse(text)
