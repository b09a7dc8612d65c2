"""How show_result prints its numbers."""

import pandas as pd
from rich.table import Table

from bench.common.errors import UserError, warn
from bench.common.terminal import print_table
from llm_judge.judge_folder import Bench
from llm_judge.result_tables import by_category, by_turn, unequal, unknown, win_rates


def print_grades(grades: pd.DataFrame, bench: Bench) -> None:
    """Print the tables of grades by turn and by category, after warnings about unequal means."""
    for line in unequal(grades):
        warn(line)
    for title, means in by_turn(grades).items():
        table = _table(title, "model", "score")
        for model, mean in means.items():
            table.add_row(str(model), f"{mean:.4f}")
        print_table(table)
    questions = bench.questions_here()
    if questions is None:
        print(
            f"no table by category: the questions of {bench.name} are not here "
            f"(python -m bench.fetch {bench.name})"
        )
        return
    categories = {each.question_id: each.category for each in questions.questions}
    if strange := unknown(grades, categories):
        warn(f"{strange}; --bench-name {bench.name} names the bench")
    cells = by_category(grades, categories)
    if cells.empty:
        return
    # One row a category and model: models have long names, and there may be many.
    table = _table("By category, with 95 % confidence", "category", "model", "score", "from", "to")
    for category, row in cells.iterrows():
        for model, cell in row.items():
            if isinstance(cell, tuple):
                table.add_row(str(category), str(model), *map(_number, cell))
        table.add_section()
    print_table(table)


def print_speed_and_quality(both: pd.DataFrame) -> None:
    """Print the table of `speed_and_quality`. Nothing where no model's speed is known."""
    if not both.tokens_per_inference.notna().any():
        return
    columns = {
        "tokens/inference": "tokens_per_inference",
        "wall-clock ratio": "wall_clock_ratio",
        "quality": "quality",
        "from": "quality_low",
        "to": "quality_high",
    }
    table = _table("Speed and quality", "model", *columns)
    for model, row in both.iterrows():
        table.add_row(str(model), *(_number(row[name]) for name in columns.values()))
    print_table(table)


def print_pairs(rows: list[dict], baseline: str | None) -> None:
    """Print the table of win rates. UserError where no match is against the baseline.

    baseline: see `result_tables.win_rates`.
    """
    rates = win_rates(rows, baseline)
    if rates.empty:
        raise UserError(
            f"no judgment is against the baseline {baseline!r}; name it with --baseline-model"
        )
    table = _table(f"Against {baseline}" if baseline else "All pairs", "model", *rates.columns)
    for model, row in rates.iterrows():
        counts, shares = row.iloc[:3], row.iloc[3:]
        table.add_row(str(model), *(f"{n:.0f}" for n in counts), *(f"{x:.4f}" for x in shares))
    print_table(table)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for column in columns:
        is_words = column in ("model", "category")
        table.add_column(
            column, justify="left" if is_words else "right", overflow="fold", no_wrap=not is_words
        )
    return table


def _number(value: float) -> str:
    return "-" if pd.isna(value) else f"{value:.2f}"
