"""Flags that several commands of this package have."""

import argparse
from pathlib import Path

from bench.inputs.published_sets import SETS
from bench.inputs.questions import SAMPLE
from llm_judge.judging import MODES


def add_data_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that choose a bench and the folder of its files."""
    parser.add_argument(
        "--bench-name", default="mt_bench", help=f"{', '.join(SETS)}, {SAMPLE}, or a folder in data"
    )
    parser.add_argument(
        "--data-dir",
        type=Path,
        help="folder of the benches (default: llm_judge/data from a checkout's root, elsewhere "
        "data)",
    )


def add_judgment_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that choose judgments: by judge, by kind and by model."""
    parser.add_argument(
        "--mode",
        choices=MODES,
        default="single",
        help="single: grades; pairwise: comparisons with the baseline, or of all pairs",
    )
    parser.add_argument("--judge-model", default="gpt-4", help="name of the judge")
    parser.add_argument(
        "--baseline-model",
        default="gpt-3.5-turbo",
        help="model that pairwise-baseline and wall-clock ratios compare with",
    )
    parser.add_argument(
        "--model-list",
        nargs="+",
        metavar="MODEL",
        help="only these models (default: all that there are)",
    )
