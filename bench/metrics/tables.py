"""The numbers of `rates` and `acceptance` by decoder, category and turn, with intervals."""

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd

from bench.metrics.acceptance import accept_length_histogram, acceptance_by_depth
from bench.metrics.intervals import Estimate, pooled_interval
from bench.metrics.rates import (
    PAIR,
    both_known,
    equal_to_baseline,
    paired,
    ratio_of,
    tokens_per_inference,
    tokens_per_second,
    tokens_per_second_with_prefill,
    wall_clock_ratio_by_question,
)
from bench.metrics.repetition import REPEATING
from bench.metrics.spec_bench import (
    mean_accepted_tokens,
    mean_tokens_per_second,
    spec_bench_speed_up,
)
from bench.store.question_id import QuestionId
from decoders.spec import BASELINE

# Ratio to the baseline -> the column of a frame that tokens are divided by. Both sides are pooled
# over the turns that both decoders finished, and that have a value in the column. An answer file
# has no decode_s: its wall_time, our wall_s, includes the prefill.
_RATIOS = {
    "tpi_ratio": "steps",
    "wall_clock_ratio": "decode_s",
    "wall_clock_ratio_with_prefill": "wall_s",
}


def estimates(
    turns: pd.DataFrame, decoder: str, baseline: str | None = BASELINE
) -> dict[str, Estimate]:
    """tokens_per_inference and the three ratios to the baseline, by name, with intervals.

    baseline: None where there is none; the ratios are NaN.
    """
    ours = turns[turns.decoder == decoder]
    interval = pooled_interval(*_sums(ours, "steps"))
    made = {"tokens_per_inference": Estimate(tokens_per_inference(ours), *interval)}
    if baseline is None:
        return made | dict.fromkeys(_RATIOS, Estimate(float("nan")))
    if decoder == baseline:
        ratios = {name: Estimate(ratio_of(ours, ours, column)) for name, column in _RATIOS.items()}
        return made | ratios
    pair = paired(turns, decoder, baseline)
    for name, column in _RATIOS.items():
        ours, theirs = both_known(*pair, column)
        interval = pooled_interval(*_sums(ours, column), *_sums(theirs, column))
        made[name] = Estimate(ratio_of(ours, theirs, column), *interval)
    return made


def _sums(turns: pd.DataFrame, column: str) -> tuple[np.ndarray, np.ndarray]:
    """Sums of the tokens, and of a column: each [questions], in the order of question_id."""
    sums = turns.groupby("question_id")[["tokens", column]].sum()
    return sums.tokens.to_numpy(), sums[column].to_numpy()


def decoder_row(
    turns: pd.DataFrame,
    decoder: str,
    asked: Mapping[QuestionId, int],
    baseline: str | None = BASELINE,
) -> dict:
    """One decoder's headline numbers: a row of summary.csv.

    asked: how many turns a question has, by question_id. baseline: None where there is none.
    """
    ours = turns[turns.decoder == decoder]
    same, compared = equal_to_baseline(turns, decoder, asked, baseline) if baseline else (0, 0)
    histogram = [round(share, 4) for share in accept_length_histogram(ours)]
    is_classed = ours.answer_class.notna().any()
    repeating = ours[ours.answer_class == REPEATING]
    return {
        "decoder": decoder,
        "baseline": baseline,
        "turns": len(ours),
        "tokens": int(ours.tokens.sum()),
        "tokens_per_second": tokens_per_second(ours),
        "tokens_per_second_with_prefill": tokens_per_second_with_prefill(ours),
        **_flat(estimates(turns, decoder, baseline)),
        "equal_answers": same,
        "compared_answers": compared,
        "accept_length_histogram": histogram,
        "median_question_ratio_with_prefill": _median_question(turns, decoder, baseline),
        "repeating_turns": len(repeating) if is_classed else float("nan"),
        "repeating_tokens": int(repeating.tokens.sum()) if is_classed else float("nan"),
    }


def _median_question(turns: pd.DataFrame, decoder: str, baseline: str | None) -> float:
    """The median over questions of the wall-clock ratio with prefill. NaN without a baseline."""
    if baseline is None:
        return float("nan")
    return float(wall_clock_ratio_by_question(turns, decoder, baseline, "wall_s").median())


def by(turns: pd.DataFrame, column: str, baselines: Mapping[str, str | None]) -> pd.DataFrame:
    """One row for each value of `column` (category or turn) and each decoder that has turns there.

    Values stand in the order of the turns. baselines: decoder -> its baseline, or None.
    """
    rows = []
    for value in turns[column].dropna().unique():
        part = turns[turns[column] == value]
        for decoder, baseline in baselines.items():
            ours = part[part.decoder == decoder]
            if ours.empty:
                continue
            rows.append(
                {
                    column: value,
                    "decoder": decoder,
                    "turns": len(ours),
                    "tokens_per_second": tokens_per_second(ours),
                    "tokens_per_second_with_prefill": tokens_per_second_with_prefill(ours),
                    **_flat(estimates(part, decoder, baseline)),
                }
            )
    return pd.DataFrame(rows)


def by_answer_class(turns: pd.DataFrame, baselines: Mapping[str, str | None]) -> pd.DataFrame:
    """As `by`, by answer class. A turn has the class of its baseline's turn, where that is known.

    So a row compares the same turns on both sides, also where the answers differ.
    """
    classes = turns.set_index(["decoder", *PAIR]).answer_class
    keys = turns[["decoder", *PAIR]].assign(
        decoder=turns.decoder.map(lambda decoder: baselines.get(decoder) or decoder)
    )
    of_baseline = classes.reindex(pd.MultiIndex.from_frame(keys)).to_numpy()
    known = pd.Series(of_baseline, index=turns.index).fillna(turns.answer_class)
    return by(turns.assign(answer_class=known), "answer_class", baselines)


def acceptance_table(turns: pd.DataFrame, decoders: Iterable[str]) -> pd.DataFrame:
    """`acceptance_by_depth` of every decoder, one below the other, with a column `decoder`."""
    tables = [
        acceptance_by_depth(turns[turns.decoder == decoder]).assign(decoder=decoder)
        for decoder in decoders
    ]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def spec_bench_row(turns: pd.DataFrame, decoder: str, baseline: str | None) -> dict:
    """One decoder's numbers as Spec-Bench computes them. speed_up: NaN without a baseline."""
    ours = turns[turns.decoder == decoder]
    return {
        "decoder": decoder,
        "mean_accepted_tokens": mean_accepted_tokens(ours),
        "mean_tokens_per_second": mean_tokens_per_second(ours),
        "speed_up": spec_bench_speed_up(turns, decoder, baseline) if baseline else float("nan"),
    }


def _flat(made: Mapping[str, Estimate]) -> dict[str, float]:
    """name, name_low and name_high for every estimate."""
    flat = {}
    for name, estimate in made.items():
        flat[name] = estimate.value
        flat[f"{name}_low"], flat[f"{name}_high"] = estimate.low, estimate.high
    return flat
