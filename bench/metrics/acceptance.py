"""What the accept lengths of the steps say. An accept length is 1 (the root) + the drafted tokens that were kept."""

import numpy as np
import pandas as pd

WINDOW = 64  # tokens over which the accept length along an answer is averaged
FEWEST = 10  # steps in a window, below which a mean says nothing


def accept_length_histogram(turns: pd.DataFrame) -> pd.Series:
    """Share of the steps that committed 1, 2, ... tokens; its mean is tokens per inference."""
    lengths, _, _ = _steps(turns)
    if not len(lengths):
        return pd.Series(dtype="float64")
    counts = np.bincount(lengths)[1:]
    return pd.Series(counts / counts.sum(), index=range(1, len(counts) + 1))


def acceptance_by_depth(turns: pd.DataFrame) -> pd.DataFrame:
    """One row a depth d = 1, 2, ... up to the deepest that was ever kept:

    tried     steps that could have kept a drafted token at depth d: they kept one at depth d - 1 (for d = 1: all), and had
              more than d nodes. A turn's last step is cut where the turn ends, so that what its tree held beyond is unknown:
              it was tried no deeper than it kept
    accepted  those of them that kept one
    rate      accepted / tried: how often depth d is right given that depth d - 1 was. This is the accuracy of head d as the
              run met it, within the tree: a lower bound of its top-k accuracy, because a right guess that the tree had no
              room for counts as wrong, and its top-1 accuracy where the tree is a single path
    share     steps with an accept length above d / all steps: how often depth d is kept at all

    An accept length holds no more than that: a run's files do not say which guess of a head was right.
    """
    lengths, nodes, last = _steps(turns)
    rows = []
    for depth in range(1, int(lengths.max(initial=1))):
        tried = (lengths >= depth) & (nodes > depth) & ~(last & (lengths == depth))
        accepted = int((lengths > depth)[tried].sum())
        rows.append(
            (depth, int(tried.sum()), accepted, accepted / tried.sum(), (lengths > depth).mean())
        )
    return pd.DataFrame(rows, columns=["depth", "tried", "accepted", "rate", "share"])


def accept_length_along(turns: pd.DataFrame, window: int = WINDOW) -> pd.Series:
    """Mean accept length by place in the answer, smoothed: at token t, the mean over the steps (of all turns) that began at
    most window / 2 tokens from t. It ends before the first place with fewer than FEWEST such steps: few answers are that long.
    """
    lengths, _, _ = _steps(turns)
    if not len(lengths):
        return pd.Series(dtype="float64")
    starts = np.concatenate(
        [np.cumsum(each) - each for each in turns.accept_lengths.dropna() if len(each)]
    )
    tokens, steps = (
        np.convolve(each, np.ones(window + 1))[window // 2 :][: starts.max() + 1]
        for each in (np.bincount(starts, weights=lengths), np.bincount(starts))
    )
    few = np.flatnonzero(steps.round() < FEWEST)
    end = few[0] if len(few) else len(steps)
    return pd.Series(tokens[:end] / steps[:end])


def _steps(turns: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of all steps whose accept length is known: accept length, nodes (infinite where not known), whether a turn's last."""
    known = turns[turns.accept_lengths.notna()]
    lengths = [each for each in known.accept_lengths if len(each)]
    if not lengths:
        empty = np.zeros(0, dtype=np.int64)
        return empty, empty, empty.astype(bool)
    nodes = [
        own if isinstance(own, np.ndarray) else np.full(len(each), np.inf)
        for each, own in zip(known.accept_lengths, known.nodes, strict=True)
        if len(each)
    ]
    last = np.zeros(sum(map(len, lengths)), dtype=bool)
    last[np.cumsum([len(each) for each in lengths]) - 1] = True
    return np.concatenate(lengths), np.concatenate(nodes), last
