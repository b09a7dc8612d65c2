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


def test_after_a_long_run_of_one_token_all_occurrences_are_real(monkeypatch):
    """Not all of its suffixes are noted with each token: that was quadratic."""
    monkeypatch.setattr("decoders.suffix.automaton.MOST_NOTED", 5)
    automaton, text = SuffixAutomaton(most=3), [1] * 40 + [2, 1, 1, 1]
    automaton.extend(text)
    found = list(automaton.earlier())
    assert found[0][0] == matches(text)[0][0]
    assert all(text[end - length : end] == text[-length:] for length, end in found)
    visited = []
    monkeypatch.setattr(automaton, "_states", _Watched(automaton._states, visited))
    automaton._note_end()
    assert len(visited) <= 5


class _Watched(list):
    """A list that notes the indices that are read."""

    def __init__(self, items, visited) -> None:
        super().__init__(items)
        self.visited = visited

    def __getitem__(self, index):
        self.visited.append(index)
        return super().__getitem__(index)
