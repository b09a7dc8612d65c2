"""Tables of the judgments: FastChat's, per category with 95 % confidence, and quality beside tokens per inference.

    python -m llm_judge.show_result                                        grades of mt_bench by gpt-4
    python -m llm_judge.show_result --bench-name sample --judge-model my-judge
    python -m llm_judge.show_result --input-file gpt-4_single.jsonl
    python -m llm_judge.show_result --mode pairwise-baseline --baseline-model vicuna-7b-greedy
    python -m llm_judge.show_result --figure figures --baseline-model vicuna-7b-greedy     speed against quality, drawn

Averages are over judgments; replies without a readable grade are counted and in no average. A confidence interval is a
percentile bootstrap over questions (both turns of a question are drawn together), with a fixed seed. Tokens per inference
come from the models' answer files, where these have steps and tokens (MEDUSA's, Spec-Bench's and ours do), and so do
wall-clock ratios to the answers of --baseline-model, which compare only what one machine timed.
"""

import argparse
import sys
from pathlib import Path

if not __package__:  # run as a script, from wherever: the packages lie one folder up
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import pandas as pd
from rich.table import Table

from bench.common.errors import UserError, exit_cleanly, warn
from bench.common.terminal import print_table
from bench.metrics import estimates, pooled_interval
from bench.store.answer_files import frame
from llm_judge.gen_judgment import MODES
from llm_judge.judge_folder import Bench, add_data_flags
from llm_judge.judging import has_verdict
from llm_judge.judgments import read_judgments


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = made.add_argument
    add_data_flags(made)
    add(
        "--input-file",
        type=Path,
        help="default: <data>/<bench>/model_judgment/<judge>_single.jsonl or _pair.jsonl",
    )
    add("--judge-model", default="gpt-4", help="default: gpt-4")
    add("--mode", choices=MODES, default="single", help="default: single")
    add(
        "--baseline-model",
        default="gpt-3.5-turbo",
        help="of pairwise-baseline and of wall-clock ratios (default: gpt-3.5-turbo)",
    )
    add(
        "--figure",
        type=Path,
        metavar="FOLDER",
        help="draw speed against quality (quality.png, .svg) into this folder",
    )
    add("--model-list", nargs="+", metavar="MODEL", help="only these models")
    return made


def by_turn(grades: pd.DataFrame) -> dict[str, pd.Series]:
    """FastChat's three tables: mean grade by model in the first turn, in the second, and over both; the best first."""
    of = {
        "First turn": grades[grades.turn == 1],
        "Second turn": grades[grades.turn == 2],
        "Average": grades,
    }
    means = {
        title: part.groupby("model").score.mean().sort_values(ascending=False)
        for title, part in of.items()
    }
    return {title: series for title, series in means.items() if len(series)}


def with_interval(grades: pd.DataFrame) -> tuple[float, float, float]:
    """(mean grade, lower, upper): the bounds of its confidence interval, NaN for fewer than two questions."""
    mean = grades.score.mean()
    questions = grades.groupby("question_id").score.agg(["sum", "count"])
    return mean, *pooled_interval(questions["sum"].to_numpy(), questions["count"].to_numpy())


def by_category(grades: pd.DataFrame, categories: dict[int, str]) -> pd.DataFrame:
    """One row a category (the last row is all of them) and one column a model, each cell as `with_interval` gives it."""
    known = grades.assign(category=grades.question_id.map(categories)).dropna(subset="category")
    cells: dict[str, dict[str, tuple]] = {}
    for model, own in known.groupby("model"):
        cells[str(model)] = {
            str(name): with_interval(part) for name, part in own.groupby("category")
        }
        cells[str(model)]["all"] = with_interval(own)
    order = [*dict.fromkeys(categories.values()), "all"]
    return pd.DataFrame(cells).reindex(order).dropna(how="all")


def win_rates(rows: list[dict], baseline: str | None) -> pd.DataFrame:
    """FastChat's pairwise table: a model wins where it is preferred in both orders, anything else is a tie.

    Columns win, loss, tie, win_rate, loss_rate, win_rate_adjusted (a tie counts half); with a baseline, only the matches
    against it and without its own row.
    """
    counts: dict[str, dict[str, int]] = {}
    for row in rows:
        models = {"model_1": row["model_1"], "model_2": row["model_2"]}
        if baseline is not None and baseline not in models.values():
            continue
        won = row["g1_winner"] if row["g1_winner"] == row["g2_winner"] else "tie"
        for side, model in models.items():
            count = counts.setdefault(model, {"win": 0, "loss": 0, "tie": 0})
            count["tie" if won == "tie" else "win" if won == side else "loss"] += 1
    table = pd.DataFrame.from_dict(counts, orient="index", columns=["win", "loss", "tie"])
    table = table.drop(index=[baseline] if baseline in table.index else [])
    total = table.sum(axis=1)
    table["win_rate"] = table.win / total
    table["loss_rate"] = table.loss / total
    table["win_rate_adjusted"] = (table.win + 0.5 * table.tie) / total
    return table.sort_values("win_rate_adjusted", ascending=False)


def speed_and_quality(bench: Bench, grades: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """By model: quality (mean grade), tokens_per_inference and wall_clock_ratio to the baseline's answers (prefill included),
    each with _low and _high; NaN where no answer file tells.
    """
    judged = [str(model) for model in grades.model.unique()]
    read = [model for model in dict.fromkeys([*judged, baseline]) if model in bench.models()]
    turns = pd.concat(
        [
            frame(()),
            *(frame(bench.read_model(model).values()).assign(decoder=model) for model in read),
        ]
    )
    against = baseline if (turns.decoder == baseline).any() else None
    rows = {}
    for model, own in grades.groupby("model"):
        speed = estimates(turns, str(model), against)
        cells = {"quality": with_interval(own)}
        for name, source in (
            ("tokens_per_inference", "tokens_per_inference"),
            ("wall_clock_ratio", "wall_clock_ratio_with_prefill"),
        ):
            cells[name] = (speed[source].value, speed[source].low, speed[source].high)
        rows[model] = {
            f"{name}{end}": value
            for name, cell in cells.items()
            for end, value in zip(("", "_low", "_high"), cell, strict=True)
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def main() -> int:
    args = parser().parse_args()
    bench = Bench.of(args.bench_name, args.data_dir)
    kind = "single" if args.mode == "single" else "pair"
    path = args.input_file or bench.judgments(args.judge_model, kind)
    if not path.is_file():
        there = ", ".join(sorted(each.name for each in path.parent.glob("*.jsonl"))) or "none"
        raise UserError(
            f"no judgments at {path} (files there: {there}); run python -m llm_judge.gen_judgment first"
        )
    rows = read_judgments(path)
    if any(("score" in row) != (kind == "single") for row in rows):
        raise UserError(f"{path} holds judgments of another kind than --mode {args.mode} shows")
    if args.figure is not None and kind == "pair":
        raise UserError("--figure draws grades; leave it out, or use --mode single")
    if args.model_list:
        wanted = {
            *args.model_list,
            *([args.baseline_model] if args.mode == "pairwise-baseline" else []),
        }
        rows = [
            row
            for row in rows
            if all(row[name] in wanted for name in ("model", "model_1", "model_2") if name in row)
        ]
    read = [row for row in rows if has_verdict(row)]
    print(
        f"{path}: {len(rows)} judgments"
        + (f", {len(rows) - len(read)} without a verdict" if len(read) < len(rows) else "")
    )
    if not read:
        raise UserError(
            f"{path} has no verdict that could be shown"
            + (" of these models" if args.model_list else "")
        )
    if kind == "pair":
        show_pairs(read, args.baseline_model if args.mode == "pairwise-baseline" else None)
    else:
        grades = pd.DataFrame(read)[["model", "question_id", "turn", "score"]].astype(
            {"score": float}
        )
        show_grades(grades, bench, args.baseline_model, args.figure)
    return 0


def unequal(grades: pd.DataFrame) -> list[str]:
    """What is said of models that lack a grade which another has: their means are of other turns, and do not compare."""
    graded = {
        str(model): set(zip(own.question_id, own.turn, strict=True))
        for model, own in grades.groupby("model")
    }
    every = set().union(*graded.values())
    return [
        f"{model} has grades of {len(own)} of the {len(every)} turns that any model has: its means are of fewer"
        for model, own in graded.items()
        if len(own) < len(every)
    ]


def show_grades(grades: pd.DataFrame, bench: Bench, baseline: str, figures: Path | None) -> None:
    for said in unequal(grades):
        warn(said)
    for title, means in by_turn(grades).items():
        table = _table(title, "model", "score")
        for model, mean in means.items():
            table.add_row(str(model), f"{mean:.4f}")
        print_table(table)
    questions = bench.questions_here()
    if questions is None:
        print(
            f"no table by category: the questions of {bench.name} are not here (python -m bench.fetch {bench.name})"
        )
    else:
        cells = by_category(
            grades, {each.question_id: each.category for each in questions.questions}
        )
        # One row a category and model: models have long names, and there may be many.
        table = _table(
            "By category, with 95 % confidence", "category", "model", "score", "from", "to"
        )
        for category, row in cells.iterrows():
            for model, cell in row.items():
                if isinstance(cell, tuple):
                    table.add_row(str(category), str(model), *map(_number, cell))
            table.add_section()
        print_table(table)
    both = speed_and_quality(bench, grades, baseline)
    if both.tokens_per_inference.notna().any():
        table = _table(
            "Speed and quality",
            "model",
            "tokens/inference",
            "wall-clock ratio",
            "quality",
            "from",
            "to",
        )
        for model, row in both.iterrows():
            numbers = row[
                [
                    "tokens_per_inference",
                    "wall_clock_ratio",
                    "quality",
                    "quality_low",
                    "quality_high",
                ]
            ]
            table.add_row(str(model), *map(_number, numbers))
        print_table(table)
    if figures is not None:
        _draw(figures, both, baseline)


def _draw(folder: Path, both: pd.DataFrame, baseline: str) -> None:
    from bench.reporting.figures import draw_quality  # late: it loads matplotlib

    try:
        figure = draw_quality(folder, both, baseline)
    except OSError as error:
        raise UserError(
            f"{error.filename or folder} cannot be written: {error.strerror}; give another --figure"
        ) from error
    if figure is None:
        raise UserError(
            "no figure: none of the judged models has an answer file with steps and tokens"
        )
    print(figure.path)


def show_pairs(rows: list[dict], baseline: str | None) -> None:
    rates = win_rates(rows, baseline)
    if rates.empty:
        raise UserError(
            f"no judgment is against the baseline {baseline!r}; name it with --baseline-model"
        )
    table = _table(f"Against {baseline}" if baseline else "All pairs", "model", *rates.columns)
    for model, row in rates.iterrows():
        table.add_row(
            str(model),
            *(str(int(value)) for value in row[:3]),
            *(f"{value:.4f}" for value in row[3:]),
        )
    print_table(table)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for column in columns:
        words = column in ("model", "category")
        table.add_column(
            column, justify="left" if words else "right", overflow="fold", no_wrap=not words
        )
    return table


def _number(value: float) -> str:
    return "-" if pd.isna(value) else f"{value:.2f}"


if __name__ == "__main__":
    exit_cleanly(main)
