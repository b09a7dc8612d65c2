"""Answers that repeat themselves.

Small models often end in a loop. A decoder that learns from the answer then drafts whole steps, and
a few such answers can decide its tokens per inference. Reports show them as a class of their own.
"""

import numpy as np

GRAM = 4  # Tokens.
REPEATS_ABOVE = 0.3  # Share of repeated 4-grams. Above it, an answer counts as repeating.
REPEATING, OTHER = "repeating", "other"  # The two classes.


def repeated_share(token_ids: np.ndarray) -> float:
    """Share of an answer's 4-grams that occurred in it before. 0 for fewer than 4 tokens.

    token_ids: [tokens].

    >>> repeated_share(np.array([1, 2, 3, 4, 5])), repeated_share(np.full(8, 7))
    (0.0, 0.8)
    """
    if len(token_ids) < GRAM:
        return 0.0
    grams = np.lib.stride_tricks.sliding_window_view(token_ids, GRAM)
    return 1 - len(np.unique(grams, axis=0)) / len(grams)


def answer_class(token_ids: np.ndarray) -> str:
    """REPEATING or OTHER."""
    return REPEATING if repeated_share(token_ids) > REPEATS_ABOVE else OTHER
