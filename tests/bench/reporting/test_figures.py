"""Figures: drawn where there is something to draw, and the same whenever they are drawn."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from bench import metrics
from bench.reporting.comparison import Report
from bench.reporting.figures import draw_quality, style, sweep
from bench.reporting.figures import run as figures_of_runs
from bench.reporting.figures.reliability import wilson
from bench.reporting.sources import open_run
from tests.helpers.runs import make_turn, random_turns, run_json, write_run


@pytest.mark.parametrize(
    "decoders", [["dynamic"], ["greedy", *(f"dynamic:nodes={2**n}" for n in range(2, 8)), "static"]]
)
def test_figures_of_one_decoder_and_of_eight_with_a_category_missing(decoders, tmp_path):
    turns = random_turns(decoders, ("math", "coding"), 3, missing=[(decoders[-1], "coding")])
    run = write_run(tmp_path / "run", turns)
    made = Report.of([open_run(run)]).draw(tmp_path / "figures")
    expected = ["tokens_per_inference", "accept_lengths", "accept_length_along"]
    if len(decoders) > 1:
        expected += ["wall_clock_ratio", "acceptance_by_depth", "sweep_nodes"]
    assert sorted(figure.name for figure in made) == sorted(expected)
    for figure in made:
        assert figure.path.read_bytes().startswith(b"\x89PNG")
        assert figure.title and figure.caption.endswith(".")
        drawn = figure.path.with_suffix(".svg").read_text()
        assert drawn.startswith("<?xml") and "NaN" not in drawn


@pytest.fixture
def drawn(monkeypatch) -> dict[str, dict[str, tuple]]:
    """Of all figures: label of the vertical axis -> name in the legend -> (heights, bars, hollow).

    bars: [points](low, high) that are drawn. hollow: heights of points drawn without an interval.
    """
    found: dict[str, dict[str, tuple]] = {}
    original = style.plt.close

    def noted(figure):
        for axes in figure.axes:
            series = found.setdefault(axes.get_ylabel().partition("\n")[0], {})
            hollow = [
                float(height)
                for line in axes.lines
                if line.get_markerfacecolor() == "white"
                for height in line.get_ydata()
            ]
            for made in axes.containers:
                if made.get_label() and hasattr(made, "has_yerr"):
                    points, _, (*_, bars) = made
                    ends = [each[:, 1].tolist() for each in bars.get_segments() if len(each)]
                    series[made.get_label()] = points.get_ydata().tolist(), ends, hollow
        original(figure)

    monkeypatch.setattr(style.plt, "close", noted)
    return found


RATIO = "wall_clock_ratio_with_prefill"


def numbers(row: dict, column: str) -> tuple:
    """What a figure draws of a column, where there is an interval."""
    value, low, high = (pytest.approx(row[f"{column}{end}"]) for end in ("", "_low", "_high"))
    return [value], [[low, high]], []


def test_a_figure_shows_the_ratio_of_whole_turns_and_its_interval(tmp_path, drawn):
    run = write_run(tmp_path / "run", random_turns(["greedy", "dynamic"], ("math",), 9))
    made = Report.of([open_run(run)])
    figures = {figure.name: figure for figure in made.draw(tmp_path / "figures")}
    row = made.summary.to_dict("records")[1]
    assert drawn["wall-clock ratio"]["dynamic"] == numbers(row, RATIO)
    assert drawn["tokens per inference"]["dynamic"] == numbers(row, "tokens_per_inference")
    # Both tests have bars of two lengths, and decoding alone has another ratio.
    assert row[f"{RATIO}_high"] - row[RATIO] != pytest.approx(row[RATIO] - row[f"{RATIO}_low"])
    assert row[RATIO] != pytest.approx(row["wall_clock_ratio"])
    assert "hollow" not in figures["wall_clock_ratio"].caption


def test_a_sweep_shows_the_ratio_of_whole_turns_and_its_interval(tmp_path, drawn):
    table = pd.DataFrame(index=["a", "b"])
    for column, value in (("tokens_per_inference", 2), (RATIO, 1.5), ("wall_clock_ratio", 9)):
        for end, factor in (("", 1), ("_low", 0.9), ("_high", 1.3)):
            table[f"{column}{end}"] = [value * factor, 2 * value * factor]
    options = {name: {"decoder": "d", "nodes": at} for at, name in enumerate("ab", start=1)}
    sweep.draw_sweeps(tmp_path, table, options)
    for axis, column in (
        ("wall-clock ratio", RATIO),
        ("tokens per inference", "tokens_per_inference"),
    ):
        heights, bars, hollow = drawn[axis]["d"]
        assert heights == table[column].tolist() and not hollow
        assert np.allclose(bars, table[[f"{column}_low", f"{column}_high"]].to_numpy())


def test_a_point_without_an_interval_is_hollow_and_has_no_bar(tmp_path, drawn):
    """Its bar had no length, as that of the most certain point."""
    run = write_run(tmp_path / "run", random_turns(["greedy", "dynamic"], ("math",), 1))
    made = Report.of([open_run(run)])
    figures = {figure.name: figure for figure in made.draw(tmp_path / "figures")}
    row = made.summary.to_dict("records")[1]
    heights, bars, hollow = drawn["wall-clock ratio"]["dynamic"]
    assert heights == hollow == [pytest.approx(row[RATIO])] and not bars
    for name in ("wall_clock_ratio", "tokens_per_inference"):
        said = "a hollow point has none: it is of one question, or of the baseline)."
        assert figures[name].caption.endswith(said)


def test_the_same_numbers_draw_the_same_file(tmp_path):
    run = write_run(tmp_path / "run", random_turns(["greedy", "static", "dynamic"]))
    made = Report.of([open_run(run)])
    figures = [made.draw(tmp_path / name)[0] for name in "ab"]
    first, second = (figure.path.with_suffix(".svg").read_bytes() for figure in figures)
    assert first == second


def test_sweeps_are_found():
    options = {
        f"{topk}-{nodes}": {"decoder": "d", "nodes": nodes, "topk": topk, "temperature": None}
        for nodes in (8, 64)
        for topk in (2, 4)
    }
    auto = {"decoder": "d", "nodes": "auto", "topk": 2, "temperature": None}
    found = sweep.sweeps(options | {"x": auto})
    assert set(found) == {"nodes", "topk"}
    assert found["nodes"] == {
        "d topk=2": [(8.0, "2-8"), (64.0, "2-64")],
        "d topk=4": [(8.0, "4-8"), (64.0, "4-64")],
    }


@pytest.mark.parametrize(
    ("changes", "is_swept"),
    [({}, True), ({"model": {"name": "other"}}, False), ({"config": {"seed": 1}}, False)],
)
def test_a_line_of_a_sweep_is_of_runs_that_are_alike(tmp_path, changes, is_swept):
    """Two models stood on one line, and greedy was swept over nodes that it does not have."""
    for nodes in (16, 64):
        turns = random_turns(["greedy", "dynamic"])
        more = changes if nodes == 64 else {}
        config = run_json(turns)["config"] | {"nodes": nodes, "seed": 0} | more.get("config", {})
        write_run(tmp_path / f"of_{nodes}", turns, **more | {"config": config})
    made = Report.of([open_run(tmp_path / f"of_{nodes}") for nodes in (16, 64)])
    for source in made.sources:
        assert "nodes" not in source.options[f"{source.name}/greedy"]
    figures = {figure.name for figure in made.draw(tmp_path / "figures")}
    assert ("sweep_nodes" in figures) == is_swept


def test_a_repeated_sweep_has_a_line_of_its_own(tmp_path, monkeypatch):
    """Its points were dropped without a word."""
    for name in ("one", "two"):
        for nodes in (16, 64):
            turns = random_turns(["greedy", "dynamic"])
            config = run_json(turns)["config"] | {"nodes": nodes, "seed": 0}
            write_run(tmp_path / f"{name}_{nodes}", turns, config=config)
    drawn = []
    monkeypatch.setattr(
        figures_of_runs, "draw_sweeps", lambda folder, table, options: drawn.append(options) or []
    )
    names = ("one_16", "one_64", "two_16", "two_64")
    Report.of([open_run(tmp_path / name) for name in names]).draw(tmp_path / "figures")
    lines = sweep.sweeps(drawn[0])["nodes"]
    assert [[label for _, label in line] for line in lines.values()] == [
        ["one_16/dynamic", "one_64/dynamic"],
        ["two_16/dynamic", "two_64/dynamic"],
    ]


def test_intervals_of_shares_lie_within_0_and_1():
    """Wilson's, of 0 of 10, 5 of 10 and 10 of 10, as tables have them."""
    low, high = wilson(np.array([0.0, 0.5, 1.0]), np.array([10, 10, 10]))
    assert low.round(3).tolist() == [0.0, 0.237, 0.722]
    assert high.round(3).tolist() == [0.278, 0.763, 1.0]


def test_names_that_the_font_lacks_are_numbers_with_a_key(tmp_path, recwarn):
    """The font would draw such characters as empty boxes."""
    turns = random_turns(["greedy", "dynamic"], ("推理", "math", "コーディング"))
    run = write_run(tmp_path / "run", turns)
    figures = Report.of([open_run(run)]).draw(tmp_path / "figures")
    assert not [warning for warning in recwarn if "Glyph" in str(warning.message)]
    assert figures
    for figure in figures:
        assert figure.caption.endswith(" [1]: 推理, [2]: コーディング.")
        assert "推" not in figure.path.with_suffix(".svg").read_text(encoding="utf-8")
    plain = write_run(tmp_path / "plain", random_turns(["greedy", "dynamic"]))
    assert "[1]" not in Report.of([open_run(plain)]).draw(tmp_path / "b")[0].caption


def test_a_name_that_legends_leave_out_is_a_number_with_a_key(tmp_path):
    """matplotlib leaves out labels that begin with _."""
    turns = random_turns(["greedy", "_a"])
    config = run_json(turns)["config"] | {"decoders": ["greedy", "_a=dynamic"]}
    run = write_run(tmp_path / "run", turns, config=config)
    figures = Report.of([open_run(run)]).draw(tmp_path / "figures")
    assert figures
    for figure in figures:
        assert figure.caption.endswith(" [1]: _a.")
        assert "<!-- [1] -->" in figure.path.with_suffix(".svg").read_text()


def test_a_name_that_leaves_no_room_for_a_figure_is_a_number():
    long = "hydra:path=" + 40 * "x"
    names = style.Names.of(["greedy", long])
    assert names["greedy"] == "greedy" and names[long] == "[1]" and long in names.key


def test_sixty_depths_have_labels_that_do_not_touch(tmp_path, monkeypatch):
    turns = [
        make_turn(accepts=[61] * 20, question_id=question, nodes=[64] * 20) for question in range(3)
    ]
    ticks = {}
    original = style.plt.close

    def noted(figure):
        for axes in figure.axes:
            figure.canvas.draw()
            boxes = [label.get_window_extent() for label in axes.get_xticklabels()]
            ticks[axes.get_xlabel()] = boxes
        original(figure)

    monkeypatch.setattr(style.plt, "close", noted)
    Report.of([open_run(write_run(tmp_path / "run", turns))]).draw(tmp_path / "figures")
    for name in ("accept length (tokens committed by a step)", "depth (tokens ahead of the root)"):
        boxes = ticks[name]
        assert len(boxes) > 5
        assert all(left.x1 < right.x0 for left, right in pairwise(boxes)), name


def test_an_interval_of_two_questions_does_not_flatten_the_others(tmp_path, monkeypatch):
    turns = random_turns(["greedy", "dynamic"], ("math",), 6)
    slow = {"question_id": 8, "category": "stem"}
    turns += [make_turn("greedy", [1] * 9, 1.0, **slow | {"question_id": at}) for at in (8, 9)]
    turns += [
        make_turn("dynamic", [9], t, **slow | {"question_id": at}) for at, t in ((8, 9), (9, 1))
    ]
    shown = {}
    original = style.plt.close

    def noted(figure):
        shown.update({axes.get_ylabel(): axes.get_ylim() for axes in figure.axes})
        original(figure)

    monkeypatch.setattr(style.plt, "close", noted)
    made = Report.of([open_run(write_run(tmp_path / "run", turns))])
    made.draw(tmp_path / "figures")
    highs = made.by_category.wall_clock_ratio_with_prefill_high
    [(bottom, top)] = [ends for label, ends in shown.items() if label.startswith("wall-clock")]
    assert highs.max() > 10 and 0 <= bottom < top < 5


def test_short_answers_have_a_course(tmp_path):
    turns = [
        make_turn(accepts=[1] * 6 + [4] * 6, question_id=question, nodes=[8] * 12)
        for question in range(20)
    ]
    frame = open_run(write_run(tmp_path / "run", turns)).frame
    line = metrics.accept_length_along(frame, metrics.window_of(frame))
    assert line.iloc[0] < 1.5 and line.iloc[-1] > 3.5


def test_a_model_without_a_speed_is_in_the_quality_figure(tmp_path):
    """A plain model that was judged, but has no steps in its answers, was missing."""
    nan = float("nan")
    rows = {"medusa": (6, 5.5, 6.5, 2.5, 2.4, 2.6), "plain": (6.2, 5.8, 6.6, nan, nan, nan)}
    ends = ("", "_low", "_high")
    columns = [f"{name}{end}" for name in ("quality", "tokens_per_inference") for end in ends]
    table = pd.DataFrame.from_dict(rows, orient="index", columns=columns)
    for end in ends:
        table[f"wall_clock_ratio{end}"] = nan
    figure = draw_quality(tmp_path, table, "plain")
    drawn = figure.path.with_suffix(".svg").read_text()
    assert "plain (speed not known)" in drawn  # matplotlib writes texts as comments, too.
    assert draw_quality(tmp_path, table.loc[["plain"]], "plain") is None


def test_an_interval_of_few_questions_is_cut_in_the_quality_figure(tmp_path, monkeypatch):
    """As its caption says."""
    rows = {"a": (6, 5, 7, 2.0, 0.1, 90.0), "b": (7, 6, 8, 3.0, 2.5, 3.5)}
    ends = ("", "_low", "_high")
    columns = [f"{name}{end}" for name in ("quality", "tokens_per_inference") for end in ends]
    table = pd.DataFrame.from_dict(rows, orient="index", columns=columns)
    for end in ends:
        table[f"wall_clock_ratio{end}"] = float("nan")
    shown = []
    original = style.plt.close

    def noted(figure):
        shown.extend(axes.get_ylim() for axes in figure.axes)
        original(figure)

    monkeypatch.setattr(style.plt, "close", noted)
    draw_quality(tmp_path, table, "b")
    [(bottom, top)] = shown
    assert 0 <= bottom < 2 and 3.5 < top <= 3.0 * style.FARTHEST
