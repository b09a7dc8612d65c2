"""The suffix automaton, against a search through the whole text."""

import random

import pytest

from decoders.suffix.automaton import SuffixAutomaton
from tests.helpers.texts import matches


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("tokens", [1, 2, 3, 9])
@pytest.mark.parametrize("most", [1, 3, 99])
def test_the_longest_repeated_suffixes_are_found(seed, tokens, most):
    draw = random.Random(seed)
    automaton, text = SuffixAutomaton(most), []
    for _ in range(60):
        text.append(draw.randrange(tokens))
        automaton.append(text[-1])
        assert automaton.text == text
        assert list(automaton.earlier())[:most] == matches(text)[:most]


def test_it_is_linear_in_the_text():
    draw = random.Random(0)
    automaton = SuffixAutomaton(most=4)
    for _ in range(2000):
        automaton.append(draw.randrange(3))
    assert len(automaton._states) < 2 * 2000
