"""The numbers of `rates` and `acceptance` by decoder, category and turn, with intervals."""

from collections.abc import Iterable, Mapping

import pandas as pd

from bench.metrics.acceptance import accept_length_histogram, acceptance_by_depth
from bench.metrics.intervals import Estimate, pooled_interval
from bench.metrics.rates import (
    BASELINE,
    both_known,
    equal_to_baseline,
    paired,
    ratio_of,
    tokens_per_inference,
    tokens_per_second,
    tokens_per_second_with_prefill,
)
from bench.metrics.spec_bench import (
    mean_accepted_tokens,
    mean_tokens_per_second,
    spec_bench_speed_up,
)

_RATIOS = {
    "tpi_ratio": "steps",
    "wall_clock_ratio": "decode_s",
    "wall_clock_ratio_with_prefill": "wall_s",
}


def estimates(
    turns: pd.DataFrame, decoder: str, baseline: str | None = BASELINE
) -> dict[str, Estimate]:
    """tokens_per_inference and the three ratios to the baseline, with intervals; the ratios are NaN without a baseline."""
    own = turns[turns.decoder == decoder]
    made = {
        "tokens_per_inference": Estimate(
            tokens_per_inference(own), *pooled_interval(*_sums(own, "steps"))
        )
    }
    pair = (own, own) if baseline in (None, decoder) else paired(turns, decoder, baseline)
    for name, below in _RATIOS.items():
        if baseline is None:
            made[name] = Estimate(float("nan"))
        elif decoder == baseline:
            made[name] = Estimate(ratio_of(*pair, below))
        else:
            ours, theirs = both_known(*pair, below)
            made[name] = Estimate(
                ratio_of(*pair, below), *pooled_interval(*_sums(ours, below), *_sums(theirs, below))
            )
    return made


def _sums(turns: pd.DataFrame, below: str) -> list:
    """[questions] tokens and [questions] what they are divided by, in the order of question_id."""
    sums = turns.groupby("question_id")[["tokens", below]].sum()
    return [sums.tokens.to_numpy(), sums[below].to_numpy()]


def decoder_row(
    turns: pd.DataFrame, decoder: str, asked: Mapping[int, int], baseline: str | None = BASELINE
) -> dict:
    """One decoder's headline numbers. `asked`: turns of each question."""
    own = turns[turns.decoder == decoder]
    same, compared = equal_to_baseline(turns, decoder, asked, baseline) if baseline else (0, 0)
    return {
        "decoder": decoder,
        "baseline": baseline,
        "turns": len(own),
        "tokens": int(own.tokens.sum()),
        "tokens_per_second": tokens_per_second(own),
        "tokens_per_second_with_prefill": tokens_per_second_with_prefill(own),
        **_flat(estimates(turns, decoder, baseline)),
        "equal_answers": same,
        "compared_answers": compared,
        "accept_length_histogram": [round(share, 4) for share in accept_length_histogram(own)],
    }


def by(turns: pd.DataFrame, column: str, baselines: Mapping[str, str | None]) -> pd.DataFrame:
    """One row a value of `column` (category or turn, in order of appearance) and decoder of `baselines`."""
    rows = []
    for value in turns[column].dropna().unique():
        part = turns[turns[column] == value]
        for decoder, baseline in baselines.items():
            own = part[part.decoder == decoder]
            if own.empty:
                continue
            rows.append(
                {
                    column: value,
                    "decoder": decoder,
                    "turns": len(own),
                    "tokens_per_second": tokens_per_second(own),
                    "tokens_per_second_with_prefill": tokens_per_second_with_prefill(own),
                    **_flat(estimates(part, decoder, baseline)),
                }
            )
    return pd.DataFrame(rows)


def acceptance_table(turns: pd.DataFrame, decoders: Iterable[str]) -> pd.DataFrame:
    """`acceptance_by_depth` of every decoder, one below the other."""
    tables = [
        acceptance_by_depth(turns[turns.decoder == each]).assign(decoder=each) for each in decoders
    ]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def spec_bench_row(turns: pd.DataFrame, decoder: str, baseline: str | None) -> dict:
    own = turns[turns.decoder == decoder]
    return {
        "decoder": decoder,
        "mean_accepted_tokens": mean_accepted_tokens(own),
        "mean_tokens_per_second": mean_tokens_per_second(own),
        "speed_up": spec_bench_speed_up(turns, decoder, baseline) if baseline else float("nan"),
    }


def _flat(made: Mapping[str, Estimate]) -> dict[str, float]:
    """name, name_low and name_high of every estimate."""
    return {
        f"{name}{end}": value
        for name, each in made.items()
        for end, value in (("", each.value), ("_low", each.low), ("_high", each.high))
    }
