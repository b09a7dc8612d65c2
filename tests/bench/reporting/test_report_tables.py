"""Tables: what they say, and that they fit a terminal."""

from dataclasses import replace

import pandas as pd
import pytest

from bench.reporting import report_tables
from bench.reporting.comparison import Report
from bench.reporting.run_source import open_run
from bench.reporting.tables import Table
from bench.store.run_record import Difference
from tests.helpers.runs import ENVIRONMENT, make_turn, random_turns, run_json, write_run

LONG = "conditional:heads=false:nodes=16"
DECODERS = ["greedy", "static:tree=mc_sim_7b_63", "dynamic", LONG, "prompt-lookup"]


@pytest.fixture
def made(tmp_path) -> Report:
    return Report.of([open_run(write_run(tmp_path / "run", random_turns(DECODERS, questions=40)))])


@pytest.mark.parametrize("columns", [80, 100, 160])
def test_the_headline_fits_a_terminal(columns, made, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(columns))
    made.headline().print()
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= columns
    assert "80/80" in printed and "prompt-lookup" in printed and "faster" in printed


def test_whole_turns_come_first(made):
    table = made.headline().cells.set_index("decoder")
    assert table.columns.tolist() == [
        "wall-clock ratio",
        "median question",
        "decoding only",
        "tokens/s",
        "tokens/inference",
        "equal",
    ]
    row = made.summary.set_index("decoder").loc[LONG]
    ratio, median = (
        f"{row[name]:.2f}x"
        for name in ("wall_clock_ratio_with_prefill", "median_question_ratio_with_prefill")
    )
    assert table["wall-clock ratio"][LONG].startswith(f"{ratio} (")
    assert table["median question"][LONG] == median
    assert table["decoding only"][LONG] == f"{row.wall_clock_ratio:.2f}x"
    assert f"with {row.tokens_per_second_with_prefill:.1f}, " not in made.verdicts()[0]


def test_the_tpi_ratio_has_a_column_where_it_says_more(tmp_path):
    run = open_run(write_run(tmp_path / "run", random_turns(["greedy", "static", "dynamic"])))
    assert "TPI ratio" not in Report.of([run]).headline().cells
    assert "TPI ratio" in Report.of([run], "static").headline().cells


def test_repeating_answers_are_shown_apart(tmp_path):
    loop = [1, 2, 3, 4] * 25
    turns = random_turns(["greedy", "dynamic"])
    turns += [
        make_turn(name, accepts, question_id=99, token_ids=loop)
        for name, accepts in (("greedy", [1] * 100), ("dynamic", [4] * 25))
    ]
    report = Report.of([open_run(write_run(tmp_path / "run", turns))])
    [table] = [each for each in report.tables() if each.title == "By answer"]
    assert table.cells.answer.tolist() == ["other", "other", "repeating", "repeating"]
    assert "2 of 42 turns repeat over 30 % of their 4-grams" in report.headline().caption


def test_of_sixty_depths_a_table_shows_those_with_steps_enough(tmp_path):
    """It had sixty columns."""
    turns = [
        make_turn(accepts=[61, *[2] * 20], question_id=question, nodes=[64] * 21)
        for question in range(12)
    ]
    report = Report.of([open_run(write_run(tmp_path / "run", turns))])
    [table] = [each for each in report.tables() if each.title == "Acceptance"]
    depths = [name for name in table.cells if name.startswith("depth")]
    assert depths == [f"depth {2**n}" for n in range(6)]
    assert table.cells["accept length, %"][0] == "0 95 0 0 0 0 0 0 0 0 0 5"
    turns = turns[:4]
    report = Report.of([open_run(write_run(tmp_path / "few", turns))])
    [table] = [each for each in report.tables() if each.title == "Acceptance"]
    assert [name for name in table.cells if name.startswith("depth")] == ["depth 1", "depth 2"]


@pytest.mark.parametrize("decoder", ["dynamic:nodes=16", LONG])
def test_only_decoders_of_heads_alone_have_accuracies_of_heads(decoder, tmp_path):
    """`conditional` reaches beyond the heads, and may have none."""
    run = open_run(write_run(tmp_path / "run", random_turns(["greedy", decoder])))
    [table] = [each for each in Report.of([run]).tables() if each.title == "Acceptance"]
    assert ("the right guess of head" in table.caption) == (decoder != LONG)


def test_every_difference_from_greedy_is_printed_with_its_gap(tmp_path):
    found = [
        Difference.of((3, "dynamic", 0, 2), token=7, ours=5, theirs=6, highest=[6, 5], gap=gap)
        for gap in (3.8e-6, 0.2)
    ]
    found.append(Difference.of((4, "dynamic", 0, 1)))
    turns = random_turns(["greedy", "dynamic"])
    run = write_run(tmp_path / "run", turns, differences=[each.as_json() for each in found])
    report = Report.of([open_run(run)])
    table = report.tables()[1]
    assert table.title == "Differences from greedy"
    assert table.cells[["question", "token", "gap", "float32 tie"]].to_numpy().tolist() == [
        ["3", "7", "3.8e-06", "yes"],
        ["3", "7", "0.2", "no: the decoder is wrong there"],
        ["4", "-", "-", "-"],
    ]
    assert "equal: answers with the same tokens in all turns" in report.headline().caption
    half = write_run(
        tmp_path / "half",
        turns,
        differences=[found[1].as_json()],
        environment=ENVIRONMENT | {"dtype": "float16"},
    )
    both = Report.of([open_run(run), open_run(half)])
    assert [each.decoder for each in both.differences][-1] == "half/dynamic"
    assert report_tables.differences(both.differences[-1:], {"half/dynamic": "float16"}).cells[
        "float32 tie"
    ].tolist() == ["-"]


def test_differences_that_were_not_looked_for_are_told(tmp_path):
    """The table showed those of the run before it went on, as if they were all."""
    equal = [make_turn("greedy", [1] * 4), make_turn("dynamic", [4])]
    turns = [*equal, make_turn("greedy", question_id=2), make_turn("dynamic", [9], question_id=2)]
    said = "equal: answers with the same tokens in all turns; where answers of dynamic differ"
    run = write_run(tmp_path / "run", turns)
    caption = Report.of([open_run(run)]).headline().caption
    assert f"{said} from greedy's: not looked for yet" in caption
    both = Report.of([open_run(run), open_run(run)]).headline().caption
    assert "answers of run/dynamic, run (2)/dynamic differ" in both
    found = [Difference.of(turns[-1].key).as_json()]
    looked = write_run(tmp_path / "looked", turns, differences=found)
    typical = run_json(turns)["config"] | {"acceptance": "typical", "temperature": None}
    unlike = write_run(tmp_path / "typical", turns, config=typical)
    for folder in (looked, unlike, write_run(tmp_path / "equal", equal)):
        assert "not looked for" not in Report.of([open_run(folder)]).headline().caption


@pytest.mark.parametrize("place", ["title", "cell", "caption"])
def test_no_part_of_a_table_steers_the_terminal(place, capsys):
    """The caption did."""
    texts = {"title": "t", "cell": "c" * 40, "caption": "d"} | {place: "owned\x1b[2J\u202e"}
    cells = pd.DataFrame({"decoder": [texts["cell"]]})
    Table(texts["title"], cells, texts["caption"]).print()
    printed = capsys.readouterr().out
    assert "owned\\x1b[2J\\u202e" in printed and not set(printed) & set("\x1b\u202e")


def test_a_decoder_is_known_by_its_spec_and_not_by_its_label(tmp_path):
    """A label is the user's own, and an option may hold a slash."""
    turns = random_turns(["greedy", "small", "static:tree=a/b.json"])
    config = run_json(turns)["config"]
    config["decoders"] = ["greedy", "small=dynamic:nodes=8", "static:tree=a/b.json"]
    run = open_run(write_run(tmp_path / "run", turns, config=config))
    alone = Report.of([replace(run, labels=("greedy", "small"))])
    assert any("the right guess of head d" in table.caption for table in alone.tables())
    both = Report.of([run, run], "static:tree=a/b.json")
    assert set(both.baselines.values()) == {
        "run/static:tree=a/b.json", "run (2)/static:tree=a/b.json"
    }  # fmt: skip
