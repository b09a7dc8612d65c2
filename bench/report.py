"""Tables and figures of a run; everything here is derived from its turns and can be made again.

python -m bench.report results/<run>
"""

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

import matplotlib
import pandas as pd
import shortuuid
from rich import box
from rich.table import Table

from bench import metrics
from bench.errors import UserError, exit_cleanly
from bench.files import json_line, safe_name, write_atomically
from bench.page import Page, Picture, conditions_of, write_page
from bench.page import Table as PageTable
from bench.records import Turn, read_run, read_turns
from bench.terminal import console
from bench.trees import read_trees

matplotlib.use("Agg")
from matplotlib import pyplot as plt

# Okabe and Ito's colours, told apart by colour-blind readers.
COLOURS = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#F0E442", "#000000"]

FIGURES = {  # file: what it shows
    "tokens_per_inference.png": ("Tokens per inference", "by category: committed tokens / verify forwards"),
    "tokens_per_second.png": ("Decoding speed", "by category: tokens a second, without the prefill"),
    "accept_lengths.png": ("Accept length", "how many steps committed 1, 2, 3, ... tokens"),
}


def derive(folder: Path) -> pd.DataFrame:
    """Write summary.csv, figures/, answers/ and report.html of a run; returns the summary.

    Says on stderr which decoders have turns that failed or are missing. UserError where no turn is finished.
    """
    run = read_run(folder)
    turns, warnings = read_turns(folder / "turns.jsonl")
    frame = metrics.frame(turns)
    if frame.empty:
        failures = [turn.error for turn in turns if turn.failed]
        raise UserError(
            f"{folder} has no finished turn" + (f"; {len(failures)} failed, first: {failures[0]}" if failures else "")
        )
    decoders = [each for each in run["config"]["decoders"] if (frame.decoder == each).any()]
    asked = {int(question_id): turns for question_id, turns in run["question_turns"].items()}
    if strange := set(frame.question_id) - asked.keys():
        raise UserError(f"{folder / 'turns.jsonl'} has turns of question {min(strange)}, which this run does not ask")
    table = metrics.summary(frame, decoders, asked)
    wanted = sum(asked.values()) * run["config"]["num_choices"]
    for decoder in run["config"]["decoders"]:
        finished = int((frame.decoder == decoder).sum())
        if finished < wanted:
            warnings.append(f"{decoder}: {finished} of {wanted} turns are finished; the others are in no number")
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    try:
        table.to_csv(folder / "summary.csv", index=False)
        write_answers(folder, run, turns)
        draw_figures(folder / "figures", frame, decoders)
        write_report_page(folder, run, turns, table, warnings)
    except OSError as error:
        raise UserError(
            f"{error.filename or folder} cannot be written: {error.strerror}; the turns are kept, and "
            f"python -m bench.report {folder} makes the rest again"
        ) from error
    return table


def model_id(run: dict, decoder: str) -> str:
    """The name of one decoder's answers: the model and what the decoder is, in characters that any file system takes."""
    return safe_name(f"{run['model']['name']}-{decoder}")


def write_answers(folder: Path, run: dict, turns: list[Turn]) -> None:
    """FastChat answer files, one a decoder."""
    (folder / "answers").mkdir(exist_ok=True)
    for decoder in run["config"]["decoders"]:
        name = model_id(run, decoder)
        lines = map(json_line, answer_rows(run, turns, decoder, name))
        write_atomically(folder / "answers" / f"{name}.jsonl", "".join(lines))


def answer_rows(run: dict, turns: Iterable[Turn], decoder: str, name: str) -> list[dict]:
    """One decoder's answers in FastChat's format, as those of model `name`, by question_id.

    A question counts when every one of its turns was finished: a failed turn is never written as an answer.
    """
    by_question: dict[int, dict[int, list[Turn]]] = {}
    for turn in sorted((t for t in turns if t.decoder == decoder and not t.failed), key=lambda t: t.key):
        by_question.setdefault(turn.question_id, {}).setdefault(turn.choice, []).append(turn)
    rows = []
    for question_id, choices in by_question.items():
        asked = run["question_turns"][str(question_id)]
        if len(choices) < run["config"]["num_choices"] or any(len(c) < asked for c in choices.values()):
            continue
        rows.append(
            {
                "question_id": question_id,
                "answer_id": shortuuid.uuid(f"{run['start']}/{name}/{question_id}"),  # the same whenever derived again
                "model_id": name,
                "choices": [_choice(index, each) for index, each in choices.items()],
                "tstamp": run["start_unix"],
            }
        )
    return rows


def _choice(index: int, turns: list[Turn]) -> dict:
    return {
        "index": index,
        "turns": [turn.text for turn in turns],
        "idxs": [len(turn.accept_lengths) - 1 for turn in turns],  # MEDUSA's field: the index of the last step
        "new_tokens": [len(turn.token_ids) for turn in turns],
        "wall_time": [turn.prefill_s + turn.decode_s for turn in turns],
        "decoding_steps": [len(turn.accept_lengths) for turn in turns],
        "accept_lengths": [length for turn in turns for length in turn.accept_lengths],
    }


HEADINGS = (
    "decoder",
    "tokens/\ninference",
    "tokens/s",
    "TPI\nratio",
    "wall-clock\nratio",
    "equal to\ngreedy",
    "accept length, %",
)


def headline(table: pd.DataFrame) -> list[list[str]]:
    """The cells under HEADINGS, one row a decoder."""
    return [
        [
            row.decoder,
            f"{row.tokens_per_inference:.3f}",
            f"{row.tokens_per_second:.1f}",
            _times(row.tpi_ratio),
            _times(row.wall_clock_ratio),
            f"{row.equal_answers} of {row.compared_answers}" if row.compared_answers else "-",
            " ".join(f"{100 * share:.0f}" for share in row.accept_length_histogram),
        ]
        for row in table.itertuples()
    ]


def print_summary(table: pd.DataFrame, title: str) -> None:
    """The headline table on the terminal."""
    out = Table(title=title, title_justify="left", caption_justify="left", box=box.SIMPLE_HEAD)
    out.caption = "accept length: share of steps that committed 1, 2, 3, ... tokens; its mean is tokens/inference"
    out.add_column(HEADINGS[0], overflow="fold")
    for column in HEADINGS[1:-1]:
        out.add_column(column, justify="right", no_wrap=True)
    out.add_column(HEADINGS[-1])
    for cells in headline(table):
        out.add_row(*cells)
    console().print(out)


def write_report_page(folder: Path, run: dict, turns: list[Turn], table: pd.DataFrame, notes: list[str]) -> None:
    """report.html of a run."""
    try:
        trees = read_trees(folder)
    except UserError as error:
        print(f"warning: {error}; the report is without trees", file=sys.stderr)
        trees = {}
    decoders = run["config"]["decoders"]
    base = metrics.BASELINE if metrics.BASELINE in decoders else None
    page = Page(
        title=f"{run['model']['name']} on {run['questions']['name']}",
        tables=[PageTable("Headline", [HEADINGS, *headline(table)])],
        pictures=[Picture(title, caption, folder / "figures" / name) for name, (title, caption) in FIGURES.items()],
        conditions={folder.name: conditions_of(run)},
        baselines=dict.fromkeys(decoders, base),
        turns=turns,
        questions={int(question_id): texts for question_id, texts in run.get("question_texts", {}).items()},
        trees=trees,
        notes=notes,
    )
    write_page(folder / "report.html", page)


def _times(ratio: float) -> str:
    return "-" if pd.isna(ratio) else f"{ratio:.2f}x"


def draw_figures(folder: Path, frame: pd.DataFrame, decoders: list[str]) -> None:
    """tokens_per_inference.png, tokens_per_second.png (both by category), accept_lengths.png."""
    folder.mkdir(exist_ok=True)
    style = {"axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True, "font.size": 10}
    with plt.rc_context(style | {"text.parse_math": False}):  # a category may hold a dollar sign
        _by_category(frame, decoders, metrics.tokens_per_inference, "tokens per inference (tokens / verify forward)",
                     folder / "tokens_per_inference.png")  # fmt: skip
        _by_category(frame, decoders, metrics.tokens_per_second, "decoding speed (tokens / s, without prefill)",
                     folder / "tokens_per_second.png")  # fmt: skip
        _accept_lengths(frame, decoders, folder / "accept_lengths.png")


def _by_category(frame: pd.DataFrame, decoders: list[str], metric, label: str, path: Path) -> None:
    categories = list(dict.fromkeys(frame.category))
    groups = [("all", frame), *((category, frame[frame.category == category]) for category in categories)]
    figure, axes = plt.subplots(figsize=(max(6.4, 1.05 * len(groups) + 1.5), 3.8), layout="constrained")
    width = 0.8 / len(decoders)
    for at, decoder in enumerate(decoders):
        heights = [metric(group[group.decoder == decoder]) for _, group in groups]
        places = [x + (at - (len(decoders) - 1) / 2) * width for x in range(len(groups))]
        axes.bar(places, heights, width * 0.92, label=decoder, color=COLOURS[at % len(COLOURS)])
    axes.axvline(0.5, color="0.7", linewidth=0.8)
    axes.set_xticks(range(len(groups)), [name for name, _ in groups], rotation=20 if len(groups) > 5 else 0)
    axes.set_ylabel(label.replace(" (", "\n("))
    axes.grid(axis="y", color="0.9")
    _legend(figure, decoders)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _accept_lengths(frame: pd.DataFrame, decoders: list[str], path: Path) -> None:
    figure, axes = plt.subplots(figsize=(6.4, 3.8), layout="constrained")
    shares = {decoder: metrics.accept_length_histogram(frame[frame.decoder == decoder]) for decoder in decoders}
    longest = max(len(share) for share in shares.values())
    width = 0.8 / len(decoders)
    for at, (decoder, share) in enumerate(shares.items()):
        places = [length + (at - (len(decoders) - 1) / 2) * width for length in share.index]
        axes.bar(places, 100 * share, width * 0.92, label=decoder, color=COLOURS[at % len(COLOURS)])
    axes.set_xticks(range(1, longest + 1))
    axes.set_xlabel("accept length (tokens committed by a step)")
    axes.set_ylabel("share of steps (%)")
    axes.grid(axis="y", color="0.9")
    _legend(figure, decoders)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _legend(figure, decoders: list[str]) -> None:
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=min(4, len(decoders)), frameon=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, nargs="+", help="folder that bench.run wrote")
    for folder in parser.parse_args().run:
        print_summary(derive(folder), str(folder))
        print(f"{folder}: summary.csv, figures/, answers/, report.html")


if __name__ == "__main__":
    exit_cleanly(main)
