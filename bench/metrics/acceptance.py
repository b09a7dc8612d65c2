"""Statistics of accept lengths.

The accept length of a step is 1 (the root) + the drafted tokens that were kept.
"""

import numpy as np
import pandas as pd

WINDOW = 64  # Tokens over which the accept length along an answer is averaged, at most.
FEWEST = 10  # Steps of a mean along the answer, or at a depth. A mean of fewer is mostly noise.


def accept_length_histogram(turns: pd.DataFrame) -> pd.Series:
    """Share of the steps that committed 1, 2, ... tokens; its mean is tokens per inference."""
    lengths, _, _ = _steps(turns)
    if not len(lengths):
        return pd.Series(dtype="float64")
    counts = np.bincount(lengths)[1:]
    return pd.Series(counts / counts.sum(), index=range(1, len(counts) + 1))


def acceptance_by_depth(turns: pd.DataFrame) -> pd.DataFrame:
    """One row for each depth 1, 2, ... up to the deepest that was ever kept. Columns:

    depth
    tried     steps that could have kept a drafted token at this depth: they kept one at depth - 1
              (depth 1: all steps), and their tree had more than `depth` nodes. The last step of a
              turn is cut where the turn ends, so it counts as tried no deeper than it kept.
    accepted  the tried steps that did keep one.
    rate      accepted / tried. It is not a head's accuracy over all positions: it counts only
              steps whose earlier guesses were right, where heads are right more often.
    share     steps with an accept length above `depth` / all steps.
    """
    lengths, nodes, is_last = _steps(turns)
    rows = []
    for depth in range(1, int(lengths.max(initial=1))):
        is_deeper = lengths > depth
        was_tried = (lengths >= depth) & (nodes > depth) & ~(is_last & (lengths == depth))
        tried, accepted = int(was_tried.sum()), int(is_deeper[was_tried].sum())
        rows.append((depth, tried, accepted, accepted / was_tried.sum(), is_deeper.mean()))
    return pd.DataFrame(rows, columns=["depth", "tried", "accepted", "rate", "share"])


def window_of(turns: pd.DataFrame) -> int:
    """Tokens for `accept_length_along` to average over: WINDOW, or a quarter of the median answer.

    With windows longer than the answers, the curve would be flat.
    """
    known = turns[turns.accept_lengths.notna()]
    return WINDOW if known.empty else int(min(WINDOW, max(2, known.tokens.median() // 4)))


def accept_length_along(turns: pd.DataFrame, window: int = WINDOW) -> pd.Series:
    """Mean accept length along the answer, smoothed. Index of the series: token 0, 1, ...

    The value at token t is the mean over the steps, of all turns, that began at most window / 2
    tokens from t. The series ends before the first token with fewer than FEWEST such steps.
    """
    lengths, _, _ = _steps(turns)
    if not len(lengths):
        return pd.Series(dtype="float64")
    starts = np.concatenate(
        [np.cumsum(turn) - turn for turn in turns.accept_lengths.dropna() if len(turn)]
    )
    tokens, steps = (
        np.convolve(counts, np.ones(window + 1))[window // 2 :][: starts.max() + 1]
        for counts in (np.bincount(starts, weights=lengths), np.bincount(starts))
    )
    few = np.flatnonzero(steps.round() < FEWEST)
    end = few[0] if len(few) else len(steps)
    return pd.Series(tokens[:end] / steps[:end])


def _steps(turns: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(accept length, nodes, is it the turn's last step?) of all steps with a known length.

    Each is [steps]. The nodes are infinite where they are not known.
    """
    known = turns[turns.accept_lengths.notna()]
    known = known[known.accept_lengths.map(len) > 0]
    if known.empty:
        empty = np.zeros(0, dtype=np.int64)
        return empty, empty, empty.astype(bool)
    counts = known.accept_lengths.map(len).to_numpy()
    nodes = [
        of_turn if isinstance(of_turn, np.ndarray) else np.full(count, np.inf)
        for of_turn, count in zip(known.nodes, counts, strict=True)
    ]
    is_last = np.zeros(counts.sum(), dtype=bool)
    is_last[np.cumsum(counts) - 1] = True
    return np.concatenate(list(known.accept_lengths)), np.concatenate(nodes), is_last
