"""Computes the numbers of answers, each defined once, with its formula.

What drafting costs is computed from a profile of steps, in `bench.reporting.drafting`.

All numbers are computed from a frame with one row for each finished turn (`frames.COLUMNS`). Failed
turns are left out. An answer file holds less than a run: a number that it cannot give is NaN.

    frames.py       the frame of a run's turns, and of an answer file
    rates.py        tokens per inference, tokens per second, ratios to a baseline, equality with it
    intervals.py    confidence intervals over questions, which hold for few of them too
    acceptance.py   accept lengths: histogram, by depth, along the answer
    repetition.py   answers that repeat themselves
    spec_bench.py   Spec-Bench's formulas, beside ours
    tables.py       these numbers by decoder, category and turn
"""

from bench.metrics.acceptance import (
    accept_length_along,
    accept_length_histogram,
    acceptance_by_depth,
    window_of,
)
from bench.metrics.frames import COLUMNS, answers_frame, frame, kept_lengths, table
from bench.metrics.intervals import Estimate, pooled_interval
from bench.metrics.rates import (
    equal_to_baseline,
    paired,
    repeatability_by_question,
    tokens_per_inference,
    tokens_per_second,
    tokens_per_second_with_prefill,
    wall_clock_ratio_by_question,
)
from bench.metrics.repetition import REPEATS_ABOVE, repeated_share
from bench.metrics.spec_bench import (
    mean_accepted_tokens,
    mean_tokens_per_second,
    spec_bench_speed_up,
)
from bench.metrics.tables import (
    acceptance_table,
    by,
    by_answer_class,
    decoder_row,
    estimates,
    spec_bench_row,
)

__all__ = [
    "COLUMNS",
    "REPEATS_ABOVE",
    "Estimate",
    "accept_length_along",
    "accept_length_histogram",
    "acceptance_by_depth",
    "acceptance_table",
    "answers_frame",
    "by",
    "by_answer_class",
    "decoder_row",
    "equal_to_baseline",
    "estimates",
    "frame",
    "kept_lengths",
    "mean_accepted_tokens",
    "mean_tokens_per_second",
    "paired",
    "pooled_interval",
    "repeatability_by_question",
    "repeated_share",
    "spec_bench_row",
    "spec_bench_speed_up",
    "table",
    "tokens_per_inference",
    "tokens_per_second",
    "tokens_per_second_with_prefill",
    "wall_clock_ratio_by_question",
    "window_of",
]
