import pytest

from decoders.spec import Spec


@pytest.mark.parametrize(
    "text",
    [
        "greedy",
        "dynamic:nodes=32:topk=8",
        "static:tree=a=b.json",
        "static:tree=",
        "",
        "small=dynamic:nodes=8",
        "a label=static:tree=a=b.json",
    ],
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
        ("=dynamic", "the label '' must be 1 to 60 characters"),
        ("a/b=dynamic", "the label 'a/b' must be"),
        ("\x1b[2J=dynamic", "the label .* must be 1 to 60 characters on one line"),
        (f"{61 * 'x'}=dynamic", "the label 'x+' must be"),
    ],
)
def test_what_is_no_spec_says_why(text, says):
    with pytest.raises(ValueError, match=says):
        Spec.parse(text)


def test_a_label_stands_for_the_spec():
    spec = Spec.parse("eagle=mine:weights=/x/y")
    assert (spec.name, spec.options, spec.label) == ("mine", {"weights": "/x/y"}, "eagle")
    assert Spec.parse("mine:weights=/x/y").label == "mine:weights=/x/y"
