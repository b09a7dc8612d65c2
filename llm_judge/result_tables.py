"""The numbers of show_result: mean grades, win rates, and quality beside speed.

A frame of grades has a row a judgment, with the columns model, question_id, turn and score.
"""

import numpy as np
import pandas as pd

from bench.common.errors import UserError, warn
from bench.metrics import estimates, pooled_interval
from bench.metrics.frames import answers_frame
from bench.reporting.sources import NoNumbers, open_answers
from bench.store.question_id import QuestionId, first_few
from llm_judge.judge_folder import Bench
from llm_judge.verdict_forms import HIGHEST_GRADE, LOWEST_GRADE

WINS = ["win", "loss", "tie"]  # Columns of `win_rates` that count matches.


def grades_of(rows: list[dict]) -> pd.DataFrame:
    """The frame of grades of these judgments."""
    columns = ["model", "question_id", "turn", "score"]
    return pd.DataFrame(rows)[columns].astype({"score": float})


def by_turn(grades: pd.DataFrame) -> dict[str, pd.Series]:
    """FastChat's three tables: by title, the mean grade by model, the best first.

    They are of the first turn, the second, and all. One without grades is left out. Files of others
    may have further turns, each with a table of its own.
    """
    further = sorted(set(grades.turn) - {1, 2})
    titles = {1: "First turn", 2: "Second turn"} | {turn: f"Turn {turn}" for turn in further}
    parts = {title: grades[grades.turn == turn] for turn, title in titles.items()}
    parts["Average"] = grades
    return {
        title: part.groupby("model").score.mean().sort_values(ascending=False)
        for title, part in parts.items()
        if len(part)
    }


def with_interval(grades: pd.DataFrame) -> tuple[float, float, float]:
    """The mean grade, and the lower and upper bound of its confidence interval.

    The bounds are NaN for fewer than two questions. They are grades as well, from 1 to 10.
    """
    questions = grades.groupby("question_id").score.agg(["sum", "count"])
    bounds = pooled_interval(questions["sum"].to_numpy(), questions["count"].to_numpy())
    low, high = np.clip(bounds, LOWEST_GRADE, HIGHEST_GRADE).tolist()
    return grades.score.mean(), low, high


def by_category(grades: pd.DataFrame, categories: dict[QuestionId, str]) -> pd.DataFrame:
    """A row for each category, "all" last, and a column for each model. Cells: `with_interval`.

    categories: by question_id. Questions that are not among them are left out.
    """
    known = grades.assign(category=grades.question_id.map(categories)).dropna(subset="category")
    cells: dict[str, dict[str, tuple]] = {}
    for model, own in known.groupby("model"):
        of_each = {str(name): with_interval(part) for name, part in own.groupby("category")}
        cells[str(model)] = of_each | {"all": with_interval(own)}
    order = [*dict.fromkeys(categories.values()), "all"]
    return pd.DataFrame(cells).reindex(order).dropna(how="all")


def win_rates(rows: list[dict], baseline: str | None) -> pd.DataFrame:
    """FastChat's pairwise table: one row for each model, the best first.

    A model wins where it is preferred in both orders. Anything else is a tie.

    rows: judgments of pairs, as `read_judgments` returns them.
    baseline: only the matches against it count, and it has no row of its own. None: all matches.

    Columns: win, loss, tie, win_rate, loss_rate, and win_rate_adjusted, where a tie counts half.
    """
    counts: dict[str, dict[str, int]] = {}
    for row in rows:
        models = {"model_1": row["model_1"], "model_2": row["model_2"]}
        if baseline is not None and baseline not in models.values():
            continue
        won = row["g1_winner"] if row["g1_winner"] == row["g2_winner"] else "tie"
        for side, model in models.items():
            count = counts.setdefault(model, dict.fromkeys(WINS, 0))
            count["tie" if won == "tie" else "win" if won == side else "loss"] += 1
    table = pd.DataFrame.from_dict(counts, orient="index", columns=WINS)
    table = table.drop(index=[baseline] if baseline in table.index else [])
    total = table.sum(axis=1)
    table["win_rate"] = table.win / total
    table["loss_rate"] = table.loss / total
    table["win_rate_adjusted"] = (table.win + 0.5 * table.tie) / total
    return table.sort_values("win_rate_adjusted", ascending=False)


def speed_and_quality(bench: Bench, grades: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """One row for each model: its quality and its speed. NaN where no answer file has the speed.

    baseline: the model that wall-clock ratios compare with.

    Columns: quality (the mean grade), tokens_per_inference, wall_clock_ratio (prefill included),
    each also with _low and _high.
    """
    judged = [str(model) for model in grades.model.unique()]
    read = [model for model in dict.fromkeys([*judged, baseline]) if model in bench.models()]
    turns = pd.concat([answers_frame(()), *(_answered_turns(bench, model) for model in read)])
    against = baseline if (turns.decoder == baseline).any() else None
    rows = {}
    for model, own in grades.groupby("model"):
        speed = estimates(turns, str(model), against)
        tpi, ratio = speed["tokens_per_inference"], speed["wall_clock_ratio_with_prefill"]
        cells = {
            "quality": with_interval(own),
            "tokens_per_inference": (tpi.value, tpi.low, tpi.high),
            "wall_clock_ratio": (ratio.value, ratio.low, ratio.high),
        }
        rows[model] = {
            f"{name}{end}": value
            for name, cell in cells.items()
            for end, value in zip(("", "_low", "_high"), cell, strict=True)
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def _answered_turns(bench: Bench, model: str) -> pd.DataFrame:
    """The turns of a model's answer file that reports count. Warns of the others.

    Empty where the file holds texts alone.
    """
    try:
        source = open_answers(bench.answer_file(model), bench.question_set_here())
    except NoNumbers:
        return answers_frame(())
    except UserError as error:
        warn(f"{error}; the speed of {model} is not shown")
        return answers_frame(())
    for warning in source.warnings:
        warn(warning)
    return source.frame.assign(decoder=model)


def unknown(grades: pd.DataFrame, categories: dict[QuestionId, str]) -> str:
    """A warning of grades of questions that have no category. Empty: there are none."""
    strange = grades[~grades.question_id.isin(list(categories))]
    if strange.empty:
        return ""
    ids = first_few(strange.question_id.unique())
    return (
        f"{len(strange)} of {len(grades)} judgments are of questions that the bench does not have "
        f"({ids}); they are in the averages, and not in the table by category"
    )


def unequal(grades: pd.DataFrame) -> list[str]:
    """A warning for each model that lacks a grade of another. Its means are of fewer turns."""
    graded = {
        str(model): set(zip(own.question_id, own.turn, strict=True))
        for model, own in grades.groupby("model")
    }
    every = set().union(*graded.values())
    return [
        f"{model} has grades of {len(own)} of the {len(every)} turns that any model has: its means "
        "are of fewer"
        for model, own in graded.items()
        if len(own) < len(every)
    ]
