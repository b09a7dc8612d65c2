"""Show tables of the judgments: FastChat's own, grades by category, and quality beside speed.

    python -m llm_judge.show_result                         grades of mt_bench by gpt-4
    python -m llm_judge.show_result --bench-name sample --judge-model my-judge
    python -m llm_judge.show_result --input-file gpt-4_single.jsonl
    python -m llm_judge.show_result --mode pairwise-baseline --baseline-model MODEL_ID
    python -m llm_judge.show_result --figure figures --baseline-model MODEL_ID

Averages are over judgments, also where an answer was judged several times. Replies without a
readable grade are counted, and are in no average. A confidence interval is over questions: both
turns of a question belong together.

Judgments of one judge are shown: of --judge-model, where a file has several. A warning says where
prompts differ.

Tokens per inference come from the models' answer files, where these have steps and tokens, as
MEDUSA's, Spec-Bench's and ours do. Wall-clock ratios compare with the answers of --baseline-model.
They mean something only where one machine timed both.
"""

import argparse
import sys
from collections import Counter
from pathlib import Path

if not __package__:  # Run as a script, from wherever: the packages lie one folder up.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from bench.common.arguments import parser as make_parser
from bench.common.errors import UserError, exit_cleanly, warn
from bench.common.files import writing
from bench.common.flags import refuse_ignored
from llm_judge.flags import add_data_flags, add_judgment_flags
from llm_judge.judge_folder import Bench
from llm_judge.judgments import (
    differences,
    has_verdict,
    is_single,
    misread,
    models_of,
    read_judgments,
)
from llm_judge.verdict_forms import HIGHEST_GRADE, LOWEST_GRADE


def parser() -> argparse.ArgumentParser:
    made = make_parser("python -m llm_judge.show_result", __doc__)
    add_data_flags(made)
    add_judgment_flags(made)
    made.add_argument(
        "--input-file",
        type=Path,
        help="file of judgments (default: the judge's in <data>/<bench>/model_judgment)",
    )
    made.add_argument(
        "--figure",
        type=Path,
        metavar="FOLDER",
        help="draw speed against quality (quality.png, .svg) into this folder",
    )
    return made


def main() -> int:
    flags = parser()
    args = flags.parse_args()
    if args.mode == "pairwise-all":
        refuse_ignored(
            args, flags.get_default, ["baseline_model"], f"--mode {args.mode} has no baseline"
        )
    bench = Bench.of(args.bench_name, args.data_dir)
    rows = _judgments(bench, args)
    # Imported late: pandas and matplotlib take a second to load. A wrong flag is reported before.
    from llm_judge.result_print import print_grades, print_pairs, print_speed_and_quality
    from llm_judge.result_tables import grades_of, speed_and_quality

    if args.mode != "single":
        print_pairs(rows, args.baseline_model if args.mode == "pairwise-baseline" else None)
        return 0
    grades = grades_of(rows)
    print_grades(grades, bench)
    both = speed_and_quality(bench, grades, args.baseline_model)
    print_speed_and_quality(both)
    if args.figure is None:
        return 0
    from bench.reporting.figures import draw_quality

    with writing(args.figure, "give another --figure"):
        figure = draw_quality(args.figure, both, args.baseline_model)
    if figure is None:
        raise UserError(
            "no figure: none of the judged models has an answer file with steps and tokens"
        )
    print(figure.path)
    return 0


def _judgments(bench: Bench, args: argparse.Namespace) -> list[dict]:
    """Print how many judgments have a verdict, and return these. UserError where none has."""
    are_grades = args.mode == "single"
    path = args.input_file or bench.judgments(args.judge_model, are_grades)
    if not path.is_file():
        there = ", ".join(sorted(each.name for each in path.parent.glob("*.jsonl"))) or "none"
        raise UserError(
            f"no judgments at {path} (files there: {there}); run python -m llm_judge.gen_judgment "
            "first"
        )
    rows = _of_one_judge(read_judgments(path), args.judge_model, path)
    if any(is_single(row) != are_grades for row in rows):
        raise UserError(f"{path} holds judgments of another kind than --mode {args.mode} shows")
    if args.figure is not None and not are_grades:
        raise UserError("--figure draws grades; leave it out, or use --mode single")
    if args.model_list:
        wanted = set(args.model_list)
        if args.mode == "pairwise-baseline":
            wanted.add(args.baseline_model)
        rows = [row for row in rows if wanted.issuperset(models_of(row))]
        shown = {model for row in rows for model in models_of(row)}
        if rows and (absent := [model for model in args.model_list if model not in shown]):
            warn(f"{path} has no judgments of {', '.join(absent)} to show (--model-list)")
    for difference in (*differences(rows), *misread(rows)):
        warn(f"{path}: {difference}")
    read = [row for row in rows if has_verdict(row)]
    unread = f", {len(rows) - len(read)} without a verdict" if len(read) < len(rows) else ""
    print(f"{path}: {len(rows)} judgments{unread}")
    if not read:
        which = " of these models" if args.model_list else ""
        scale = f" (a grade is from {LOWEST_GRADE} to {HIGHEST_GRADE})" if are_grades else ""
        raise UserError(f"{path} has no verdict that could be shown{which}{scale}")
    return read


def _of_one_judge(rows: list[dict], judge: str, path: Path) -> list[dict]:
    """The judgments by `judge`. All of them where only one judge made them, whatever its name.

    UserError where several judges made them, and `judge` is not among these.
    """
    counts = Counter(row["judge"][0] for row in rows)
    if len(counts) < 2:
        return rows
    listed = ", ".join(f"{name}: {count}" for name, count in counts.items())
    if judge not in counts:
        raise UserError(
            f"{path} holds judgments by several judges ({listed}), none of them {judge!r}; choose "
            "one with --judge-model"
        )
    warn(
        f"{path} holds judgments by several judges ({listed}); those of {judge} are shown, and "
        "--judge-model chooses others"
    )
    return [row for row in rows if row["judge"][0] == judge]


if __name__ == "__main__":
    exit_cleanly(main)
