"""Repetitions in a text, found by looking at all of it."""


def matches(text: list[int]) -> list[tuple[int, int]]:
    """(length, place after it) of every earlier occurrence of a suffix of the text.

    Of each place the longest suffix that ends there. The longest first, then the latest.

    >>> matches([1, 2, 9, 1, 2])
    [(2, 2)]
    """
    found = []
    for end in range(1, len(text)):
        length = 0
        while length < end and text[end - 1 - length] == text[-1 - length]:
            length += 1
        if length > 0:
            found.append((length, end))
    return sorted(found, key=lambda match: (-match[0], -match[1]))
