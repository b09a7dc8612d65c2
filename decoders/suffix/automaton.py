"""A suffix automaton: every substring of a text, in a number of states linear in its length.

Substrings that end at the same positions share a state. A state knows the length of the longest of
them, the last positions where they end, and which tokens follow them. Its link is the state of
their longest suffix that also ends elsewhere. (Blumer et al. 1985; for drafting: SAM Decoding, Hu
et al. 2024, arXiv 2411.10666.)
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

EMPTY = 0  # The state of the empty substring. Its link is BEYOND.
BEYOND = -1
# Suffixes whose latest occurrence is noted with each token, the longest first. A run of one token
# has as many of them as tokens. Shorter ones keep occurrences that are older.
MOST_NOTED = 256


@dataclass
class _State:
    length: int  # Tokens of its longest substring.
    link: int
    # Positions right after its latest occurrences, the latest first. The occurrence at the end of
    # the text is added with the next token.
    ends: tuple[int, ...] = ()
    next: dict[int, int] = field(default_factory=dict)  # State after each following token.


class SuffixAutomaton:
    """All substrings of `text`, with the latest `most` occurrences of each.

    Of suffixes beyond the MOST_NOTED longest, older occurrences may stand instead.

    >>> automaton = SuffixAutomaton(most=2)
    >>> for token in (1, 2, 9, 1, 2, 8, 3, 2):
    ...     automaton.append(token)
    >>> list(automaton.earlier())
    [(1, 5), (1, 2)]
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.text: list[int] = []
        self._states = [_State(length=0, link=BEYOND)]
        self._whole = EMPTY  # The state of the whole text.

    def extend(self, tokens: Iterable[int]) -> None:
        """Append tokens to the text, in order."""
        for token in tokens:
            self.append(token)

    def append(self, token: int) -> None:
        """Append a token to the text."""
        states = self._states
        self._note_end()
        self.text.append(token)
        new, state = len(states), self._whole
        states.append(_State(len(self.text), EMPTY))
        self._whole = new
        # Go through the suffixes of the old text, the longest first. Those that this token has
        # never followed before now lead to `new`.
        while state != BEYOND and token not in states[state].next:
            states[state].next[token] = new
            state = states[state].link
        if state == BEYOND:
            return
        # This suffix and the token make the longest suffix of the new text that occurred before. It
        # is in the state `known`, and has `length` tokens.
        known = states[state].next[token]
        longer, length = states[known], states[state].length + 1
        if longer.length == length:
            states[new].link = known
            return
        # The substrings of `longer` up to this length now end here too. Its longer ones do not, so
        # the state is split.
        split = len(states)
        states.append(_State(length, longer.link, longer.ends, dict(longer.next)))
        longer.link = states[new].link = split
        while state != BEYOND and states[state].next.get(token) == known:
            states[state].next[token] = split
            state = states[state].link

    def _note_end(self) -> None:
        """Add the end of the text to the occurrences of its MOST_NOTED longest suffixes."""
        state = self._whole
        for _ in range(MOST_NOTED):
            if state == EMPTY:
                return
            found = self._states[state]
            found.ends = (len(self.text), *found.ends[: self.most - 1])
            state = found.link

    def earlier(self) -> Iterator[tuple[int, int]]:
        """Earlier occurrences of suffixes of the text: (length of the suffix, position after it).

        The longest suffix comes first, then the latest of equally long ones. A state keeps only its
        latest `most` occurrences, so some may be missing after the first `most` results.
        """
        given: set[int] = set()
        state = self._whole
        while state != EMPTY:
            found = self._states[state]
            for end in found.ends:
                if end not in given:
                    given.add(end)
                    yield found.length, end
            state = found.link
