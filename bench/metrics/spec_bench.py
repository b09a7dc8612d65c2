"""Spec-Bench's numbers (github.com/hemingkx/Spec-Bench, evaluation/speed.py), so that ours stand beside published ones.

They differ from ours: a row is a question with all its turns, only its first choice counts, times include the prefill, and
speeds are averaged over rows where ours are pooled. One thing is not taken over: Spec-Bench counts the baseline's tokens
by tokenising its text again; here they are the recorded ones, on both sides.
"""

import pandas as pd

from bench.metrics.rates import BASELINE, ratio


def mean_accepted_tokens(turns: pd.DataFrame) -> float:
    """Mean of the accept lengths of all steps, where they are recorded. Equal to tokens per inference of the same turns."""
    known = turns[(turns.choice == 0) & turns.accept_lengths.notna()]
    return ratio(
        sum(int(each.sum()) for each in known.accept_lengths), sum(map(len, known.accept_lengths))
    )


def mean_tokens_per_second(turns: pd.DataFrame) -> float:
    """Mean over questions of sum(new_tokens) / sum(wall_time), each over the question's turns, prefill included."""
    first = turns[(turns.choice == 0) & turns.wall_s.notna()]
    sums = first.groupby("question_id")[["tokens", "wall_s"]].sum()
    return float((sums.tokens / sums.wall_s).mean())


def spec_bench_speed_up(turns: pd.DataFrame, decoder: str, baseline: str = BASELINE) -> float:
    """Mean tokens per second of the decoder / that of the baseline; each over all of its own rows, paired or not."""
    ours, theirs = (
        mean_tokens_per_second(turns[turns.decoder == name]) for name in (decoder, baseline)
    )
    return ratio(ours, theirs)
