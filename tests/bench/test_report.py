"""The command bench.report: what it prints, what it warns of, and which files it makes."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from bench import report
from bench.common.errors import exit_cleanly
from bench.store.step_profile import PHASES
from bench.store.step_profile import SCHEMA_VERSION as STEPS_VERSION
from tests.helpers.pages import HOSTILE, page_data
from tests.helpers.paths import ROOT
from tests.helpers.runs import ENVIRONMENT, make_turn, random_turns, write_run

TEXTS_ONLY = {"question_id": 1, "choices": [{"index": 0, "turns": ["a"]}]}


def command(capsys, *arguments: object) -> tuple[int, str, str]:
    """Run the command; (exit status, stdout, stderr)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["bench.report", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            exit_cleanly(report.main)
    printed = capsys.readouterr()
    return ended.value.code, printed.out, printed.err


def change_run(folder: Path, **changes: object) -> None:
    """Change fields of a run.json."""
    run = json.loads((folder / "run.json").read_text()) | changes
    (folder / "run.json").write_text(json.dumps(run))


@pytest.fixture
def run(tmp_path) -> Path:
    return write_run(tmp_path / "mine", random_turns(["greedy", "static", "dynamic"]))


def imported(code: str) -> set[str]:
    """The names of the modules that are loaded after `code`."""
    code += "\nimport sys; sys.stderr.write(' '.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(done.stderr.split())


def test_reporting_needs_no_torch(run):
    modules = imported(
        "import bench.reporting.figures, bench.reporting.tree_picture\n"
        "from bench.report import main\n"
        f"main([{str(run)!r}, '--format', 'json'])"
    )
    assert {"bench.reporting.comparison", "pandas", "matplotlib"} <= modules
    assert not {"torch", "transformers", "accelerate"} & modules


def test_a_run_is_shown_and_its_files_are_made(run, capsys):
    status, out, err = command(capsys, run)
    assert status == 0 and "warning" not in err
    titles = ("Comparison", "By category", "By turn", "Acceptance", "As Spec-Bench computes it")
    assert all(title in out for title in titles)
    assert "faster" in out
    leads = r"most tokens per inference: dynamic with \d\.\d+, \d\.\d+x static's \(95 %:"
    assert re.search(leads, out)
    table = pd.read_csv(run / "summary.csv").set_index("decoder")
    low, ratio, high = table.loc["dynamic", ["tpi_ratio_low", "tpi_ratio", "tpi_ratio_high"]]
    assert low < ratio < high
    assert (run / "figures" / "tokens_per_inference.svg").exists()
    assert len(list((run / "answers").iterdir())) == 3


def test_no_difference_is_said_in_words(tmp_path, capsys):
    turns = random_turns(["greedy", "static"])
    twins = [
        make_turn(
            "twin",
            turn.accept_lengths[::-1],
            turn.decode_s,
            question_id=turn.question_id,
            turn=turn.turn,
            category=turn.category,
        )
        for turn in turns
        if turn.decoder == "static"
    ]
    run = write_run(tmp_path / "run", [*turns, *twins])
    _, out, _ = command(capsys, run, "--baseline", "static")
    assert re.search(r"twin .* no significant difference", out)
    assert re.search(r"most tokens per inference: .* 1\.00x .*, no significant difference", out)


def test_runs_and_answer_files_side_by_side(run, tmp_path, capsys):
    other = write_run(tmp_path / "other", random_turns(["greedy", "dynamic"]))
    command(capsys, run)
    file = run / "answers" / "demo-dynamic.jsonl"
    flags = ["--out", tmp_path / "all", "--format", "json"]
    status, out, err = command(capsys, run, other, file, *flags)
    record = json.loads(out)
    rows = {row["decoder"]: row for row in record["decoders"]}
    labels = ["mine/greedy", "mine/static", "mine/dynamic", "other/greedy", "other/dynamic"]
    assert status == 0 and list(rows) == [*labels, "demo-dynamic"]
    assert rows["other/dynamic"]["baseline"] == "other/greedy"
    assert rows["demo-dynamic"]["wall_clock_ratio"] is None
    for column in ("tokens_per_inference", "accept_length_histogram"):
        assert rows["demo-dynamic"][column] == rows["mine/dynamic"][column]
    assert "model, questions, settings and machine of demo-dynamic are not recorded" in err
    assert "different machines" not in err
    assert (tmp_path / "all" / "figures" / "tokens_per_inference.png").exists()
    # One of them may be of another machine.
    assert not any("per second" in verdict for verdict in record["verdicts"])
    _, out, _ = command(capsys, run, file, "--baseline", "demo-dynamic", "--format", "json")
    rows = {row["decoder"]: row for row in json.loads(out)["decoders"]}
    assert rows["mine/dynamic"]["tpi_ratio"] == 1.0
    assert rows["mine/dynamic"]["wall_clock_ratio_with_prefill"] == pytest.approx(1.0)


def test_other_machines_are_said(run, tmp_path, capsys):
    newer = ENVIRONMENT | {"torch": "2.10"}
    other = write_run(tmp_path / "other", random_turns(["greedy"]), environment=newer)
    _, _, err = command(capsys, run, other)
    assert "warning: times do not compare, only tokens per inference" in err
    assert "torch: 2.9 in mine, 2.10 in other" in err
    fewer = write_run(tmp_path / "fewer", random_turns(["greedy"], questions=2))
    assert "fewer and mine answer different questions" in command(capsys, run, fewer)[2]
    sessions = [{"environment": {"a": 1}}, {"environment": {"a": 2}}]
    moved = write_run(tmp_path / "moved", random_turns(["greedy"]), sessions=sessions)
    assert "were on different machines or versions" in command(capsys, moved)[2]


def test_workers_on_other_machines_are_said_and_not_ranked(tmp_path, capsys):
    """They answered one question by turns: greedy on one GPU, the next decoder on another."""
    turns, one = random_turns(["greedy", "dynamic"]), {"device": "a machine", "threads": 1}
    for name, other, is_said in (("alike", {}, False), ("mixed", {"device": "faster"}, True)):
        session = {"environment": ENVIRONMENT | {"workers": 2}, "workers": [one, one | other]}
        run = write_run(tmp_path / name, turns, sessions=[session])
        _, out, err = command(capsys, run)
        assert ("its sessions, or their workers, were on different machines" in err) == is_said
        assert ("not alike" in out) == is_said and ("faster" in out) != is_said


def test_workers_on_one_cpu_are_said(tmp_path, capsys):
    """They slow each other down."""
    for device_type, is_said in (("cpu", True), ("cuda", False)):
        environment = ENVIRONMENT | {"workers": 2, "device_type": device_type}
        run = write_run(tmp_path / device_type, random_turns(["greedy"]), environment=environment)
        said = "its 2 workers ran on CPUs, and slow each other down"
        assert (said in command(capsys, run)[2]) == is_said


def test_a_run_that_is_not_whole_is_shown_with_a_line_about_each_lack(tmp_path, capsys):
    turns = random_turns(["greedy", "dynamic"])
    failed = make_turn("dynamic", [], 0.0, question_id=0, finish_reason="error", error="boom")
    timeless = make_turn("dynamic", [2], float("nan"), question_id=0, turn=2)
    run = write_run(tmp_path / "run", [*turns[4:], *turns[:2], failed, timeless], end=None)
    with (run / "turns.jsonl").open("a") as file:
        file.write('{"question_id": 3, "deco')
    status, out, err = command(capsys, run)
    assert status == 0 and "dynamic" in out
    for lack in (
        "is torn",
        "in progress, or was interrupted",
        "dynamic: 19 of 20 turns",
        "1 of 19 turns have no usable time",
    ):
        assert sum(lack in line for line in err.splitlines()) == 1, lack
    assert len(err.splitlines()) == 5  # The last one says what was written.


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema_version": 9}, "has schema version 9; this version reads 1"),
        ({"config": None}, "is damaged"),
        ({"config": {"decoders": ["dynamic:16"], "num_choices": 1}}, "'16' is not option=value"),
        ({"config": {"decoders": ["hydra"], "num_choices": 1}}, "has no finished turn"),
    ],
)
def test_a_run_that_cannot_be_read_is_shown_by_its_answer_files(changes, message, run, capsys):
    command(capsys, run)
    change_run(run, **changes)
    status, out, err = command(capsys, run)
    assert status == 1 and "demo-dynamic" in out
    assert message in err and "its answer files are shown instead" in err


def test_a_run_without_run_json_is_shown_by_its_answer_files(run, capsys):
    command(capsys, run)
    (run / "run.json").unlink()
    status, out, err = command(capsys, run)
    assert status == 1 and "demo-dynamic" in out
    assert "it has no run.json; its answer files are shown instead" in err


def test_a_decoder_that_is_no_spec_is_one_line(tmp_path, capsys):
    run = write_run(tmp_path / "run", random_turns(["greedy", "dynamic:16"]))
    status, _, err = command(capsys, run)
    assert status == 2 and err.count("\n") == 1
    assert "run.json is damaged" in err and "'16' is not option=value" in err


def test_what_cannot_be_shown_does_not_hide_the_rest(run, tmp_path, capsys):
    empty = write_run(tmp_path / "empty", [])
    status, out, err = command(capsys, empty, run, tmp_path / "nowhere")
    assert status == 1 and "dynamic" in out
    first, second = (line for line in err.splitlines() if line.startswith("error: "))
    assert "empty has no finished turn" in first and "does not exist" in second


def test_turns_of_decoders_that_a_run_does_not_name(tmp_path, capsys):
    """A run.json of another run lies beside them. It ended in a ZeroDivisionError."""
    turns = random_turns(["greedy", "static", "dynamic"], questions=2, steps=4)
    run = write_run(tmp_path / "run", turns)

    def named(*decoders: str) -> tuple[int, str, str]:
        change_run(run, config={"decoders": decoders, "num_choices": 1})
        return command(capsys, run, "--format", "markdown")

    status, out, err = named("hydra", "eagle")
    assert status == 2 and out == "" and err.count("\n") == 1
    assert "has no finished turn; " in err
    assert "has turns of 'dynamic' and 2 more decoders, which run.json does not name" in err
    status, out, err = named("greedy", "hydra")
    assert status == 0 and "greedy" in out and "dynamic" not in out and "hydra: 0 of" in err
    others = "turns of 'dynamic' and 1 more decoders, which run.json does not name"
    assert f"{others}; they are left out" in err
    page = (run / "report.html").read_text()
    assert "greedy" in page and '"static"' not in page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "nothing to report"),
        ("{tmp}/nowhere", "does not exist; expected a run's folder or an answer file"),
        ("{tmp}", "is neither a run's folder (it has no run.json) nor a folder of answer files"),
        ("{tmp}/run --baseline hydra", "--baseline is 'hydra'; expected one of greedy, dynamic"),
        ("{tmp}/texts.jsonl", "has no numbers to report"),
        ("--phases {tmp}/run/turns.jsonl", "is not JSON"),
        (
            "--phases {tmp}/run/run.json",
            "has schema version 1; this version reads 2; expected the JSON file that scripts",
        ),
    ],
)
def test_what_is_wrong_is_one_line(arguments, message, tmp_path, capsys):
    write_run(tmp_path / "run", random_turns(["greedy", "dynamic"]))
    if "texts" in arguments:
        (tmp_path / "texts.jsonl").write_text(json.dumps(TEXTS_ONLY | {"model_id": "m"}) + "\n")
    status, _, err = command(capsys, *arguments.format(tmp=tmp_path).split())
    assert status == 2 and message in err and err.count("\n") == 1


def test_runs_that_were_set_differently_are_shown_and_none_is_said_to_lead(tmp_path, capsys):
    for name, temperature in (("cold", 0.0), ("warm", 0.7)):
        made = random_turns(["greedy", "dynamic"])
        turns = [replace(turn, temperature=temperature) for turn in made]
        folder = write_run(tmp_path / name, turns)
        config = json.loads((folder / "run.json").read_text())["config"]
        change_run(folder, config=config | {"temperature": temperature})
    _, out, err = command(capsys, tmp_path / "cold", tmp_path / "warm")
    assert "were set differently, and none is said to lead: temperature 0.0, 0.7" in err
    assert "cold/dynamic" in out and "most tokens" not in out
    _, out, err = command(capsys, tmp_path / "cold")
    assert "were set differently" not in err and "most tokens" in out


def test_of_a_folder_what_can_be_shown_is_shown(tmp_path, capsys):
    """FastChat's own answers have no numbers, which is nothing wrong; an empty file is."""
    folder = tmp_path / "model_answer"
    folder.mkdir()
    timed = {"index": 0, "turns": ["a"], "idxs": [1], "new_tokens": [4], "wall_time": [0.5]}
    ours = TEXTS_ONLY | {"model_id": "ours", "choices": [timed]}
    (folder / "ours.jsonl").write_text(json.dumps(ours) + "\n")
    (folder / "gpt-4.jsonl").write_text(json.dumps(TEXTS_ONLY | {"model_id": "gpt-4"}) + "\n")
    status, out, err = command(capsys, folder)
    assert status == 0 and "ours" in out
    assert "gpt-4.jsonl has no numbers to report" in err and "it is left out" in err
    (folder / "empty.jsonl").touch()
    status, out, err = command(capsys, folder)
    assert status == 1 and "ours" in out
    assert "error: " in err and "empty.jsonl has no answer in it" in err
    (folder / "ours.jsonl").unlink()
    status, out, err = command(capsys, folder)
    assert status == 2 and "none of these can be shown" in err


def test_phases_are_drawn_from_their_file(tmp_path, capsys):
    row = {f"{phase}_s": 0.001 for phase in PHASES} | {"decoder": "greedy", "length": 128}
    row |= {"operations": 3, "synchronisations": 1}
    record = {"schema_version": STEPS_VERSION, "rows": [row, row | {"length": 512}]}
    (tmp_path / "step.json").write_text(json.dumps(record))
    assert command(capsys, "--phases", tmp_path / "step.json")[0] == 0
    status, _, err = command(capsys, "--phases", tmp_path / "step.json", "--format", "json")
    assert status == 2 and "--format has no effect: without runs, --phases is a figure alone" in err
    assert (tmp_path / "step_phases.png").exists() and (tmp_path / "step_phases.svg").exists()


def write_steps(path: Path, decoders: dict[str, tuple[float, float]], device: str) -> None:
    """decoders: name -> (ms of drafting, ms of verifying). At 512 tokens all take twice as long."""
    rows = []
    for length, times in ((128, 1), (512, 2)):
        for name, (drafting, verifying) in decoders.items():
            row = dict.fromkeys((f"{phase}_s" for phase in PHASES), 0.0)
            row |= {"draft_s": times * drafting / 2e3, "propose_s": times * drafting / 2e3}
            row |= {"verify_s": times * verifying / 1e3, "decoder": name, "length": length}
            rows.append(row | {"operations": 3, "synchronisations": 1})
    record = {"schema_version": STEPS_VERSION, "rows": rows, "environment": {"device": device}}
    path.write_text(json.dumps(record))


def test_a_report_has_what_drafting_costs(tmp_path, capsys):
    """Of the decoders that were measured; two runs have names before their decoders'."""
    for name in ("a", "b"):
        write_run(tmp_path / name, random_turns(["greedy", "dynamic", "static"]))
    device = json.loads((tmp_path / "a" / "run.json").read_text())["environment"]["device"]
    step = tmp_path / "step.json"
    write_steps(step, {"greedy": (0, 10), "dynamic": (5, 15)}, device)
    flags = ("--phases", step, "--format", "markdown", "--out", tmp_path / "out")
    status, out, err = command(capsys, tmp_path / "a", tmp_path / "b", *flags)
    assert status == 0 and "step times" not in err
    lines = out[out.index("**Drafting**") :].splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:5]] for line in lines[4:8]]
    assert rows == [
        ["a/greedy", "0.00", "0.000", "1.00"],
        ["a/dynamic", "7.50", "0.500", "2.00"],
        ["b/greedy", "0.00", "0.000", "1.00"],
        ["b/dynamic", "7.50", "0.500", "2.00"],
    ]
    flags = ("--phases", step, "--format", "json", "--out", tmp_path / "out")
    _, out, _ = command(capsys, tmp_path / "a", *flags)
    assert [row["drafting"] for row in json.loads(out)["drafting"]] == [0, 0.5]
    for figure in ("drafting", "step_phases"):
        assert (tmp_path / "out" / "figures" / f"{figure}.svg").exists()


@pytest.mark.parametrize(
    ("decoders", "device", "status", "says"),
    [
        ({"greedy": (0, 10)}, "another", 0, "are of device another, and run is of"),
        ({"dynamic": (0, 10)}, "", 2, "has no greedy steps at 128 tokens of context"),
    ],
)
def test_step_times_that_do_not_fit_are_told(decoders, device, status, says, tmp_path, capsys):
    write_run(tmp_path / "run", random_turns(["greedy", "dynamic"]))
    write_steps(tmp_path / "step.json", decoders, device)
    found, _, err = command(capsys, tmp_path / "run", "--phases", tmp_path / "step.json")
    assert found == status and says in err


def test_anyones_answer_files_side_by_side(tmp_path, monkeypatch, capsys):
    """Published files have neither token ids nor splits of time. A recorded error is a failure."""
    asked = {"question_id": 81, "category": "stem", "turns": ["Why <b>?", "And?"]}
    (tmp_path / "asked.jsonl").write_text(json.dumps(asked) + "\n")
    numbers = {"idxs": [1, 3], "new_tokens": [5, 9], "wall_time": [1.0, 2.0]}
    for name, second in (("one", "yes"), ("two", "ERROR")):
        choice = {"index": 0, "turns": [HOSTILE, second], **numbers}
        row = {"question_id": 81, "answer_id": "a", "model_id": name, "choices": [choice]}
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row | {"tstamp": 1.0}) + "\n")
    monkeypatch.chdir(tmp_path)
    flags = "--questions asked.jsonl --baseline one --out both"
    assert command(capsys, "one.jsonl", "two.jsonl", *flags.split())[0] == 0
    data = page_data(tmp_path / "both" / "report.html")
    assert data["decoders"] == ["one", "two"] and data["baselines"] == [0, 0]
    [question] = data["questions"]
    assert (question["id"], question["category"]) == (81, "stem")
    assert question["turns"] == ["Why <b>?", "And?"]
    # Decoder, turn, text, finish reason, first difference.
    answers = [[answer[at] for at in (0, 2, 3, 7, 11)] for answer in question["answers"]]
    assert answers == [
        [0, 1, HOSTILE, "unknown", None],
        [0, 2, "yes", "unknown", None],
        [1, 1, HOSTILE, "unknown", None],
        [1, 2, "recorded as an error", "error", None],
    ]
