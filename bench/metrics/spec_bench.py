"""Spec-Bench's numbers (github.com/hemingkx/Spec-Bench, evaluation/speed.py).

They let our numbers stand beside published ones, and differ from ours:

- A row is a question with all its turns, and only its first choice counts.
- Times include the prefill.
- Speeds are averaged over rows; ours are pooled.

Two differences remain. Spec-Bench counts the baseline's tokens by tokenising its text again; here
both sides have the recorded tokens. Spec-Bench counts all tokens of a last step; here those count
that were kept of it.
"""

import pandas as pd

from bench.metrics.rates import ratio
from decoders.spec import BASELINE


def mean_accepted_tokens(turns: pd.DataFrame) -> float:
    """Mean accept length over all steps, where they are recorded.

    It equals tokens per inference of the same turns: those of the first choice.
    """
    known = turns[(turns.choice == 0) & turns.accept_lengths.notna()]
    tokens = sum(int(lengths.sum()) for lengths in known.accept_lengths)
    return ratio(tokens, sum(map(len, known.accept_lengths)))


def mean_tokens_per_second(turns: pd.DataFrame) -> float:
    """Mean over questions of sum(new_tokens) / sum(wall_time), the sums over a question's turns."""
    first = turns[(turns.choice == 0) & turns.wall_s.notna()]
    sums = first.groupby("question_id")[["tokens", "wall_s"]].sum()
    return float((sums.tokens / sums.wall_s).mean())


def spec_bench_speed_up(turns: pd.DataFrame, decoder: str, baseline: str = BASELINE) -> float:
    """Mean tokens per second of the decoder / the baseline's. Rows are not paired."""
    ours, theirs = (
        mean_tokens_per_second(turns[turns.decoder == name]) for name in (decoder, baseline)
    )
    return ratio(ours, theirs)
