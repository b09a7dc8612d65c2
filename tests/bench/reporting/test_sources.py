"""The sources at a path of the command line."""

import json
import shutil
from pathlib import Path

import pytest

from bench.inputs import published_sets
from bench.inputs.published_sets import Remote
from bench.reporting.comparison import Report
from bench.reporting.sources import open_answers, open_sources
from bench.store.answer_files import write_answers
from bench.store.run_record import read_run
from tests.helpers.runs import make_turn, write_run


def choice(*texts: str) -> dict:
    numbers = [1] * len(texts)
    return {"turns": list(texts), "idxs": numbers, "new_tokens": [2] * len(texts)}


def answers(path: Path, *choices: dict, model: str | None = "m") -> Path:
    """An answer file with one question for each of these choices."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [
        {"question_id": number, "model_id": model, "choices": [own]}
        for number, own in enumerate(choices, start=1)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def questions(path: Path, category: str, count: int = 2) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [
        {"question_id": number, "category": category, "turns": [category]}
        for number in range(1, count + 1)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def cached(tmp_path, monkeypatch) -> None:
    """The cache holds one published set, with the questions 1 and 2."""
    file = questions(tmp_path / "cache" / "vicuna_bench" / "question.jsonl", "cached")
    digest = published_sets.digest_of(file)
    remote = Remote("a/b", "c", "question.jsonl", digest)
    monkeypatch.setenv(published_sets.CACHE, str(tmp_path / "cache"))
    monkeypatch.setitem(published_sets.SETS["vicuna_bench"], "question.jsonl", remote)


def test_a_set_that_is_guessed_is_named_once(cached, tmp_path):
    """Answers to other questions of the same numbers got its categories without a word."""
    for name in ("a", "b"):
        answers(tmp_path / "bench" / "model_answer" / f"{name}.jsonl", choice("x"), choice("y"))
    sources, errors = open_sources(tmp_path / "bench" / "model_answer")
    assert not errors and list(sources[0].frame.category) == ["cached", "cached"]
    guesses = [each for each in Report.of(sources).warnings if "are guessed" in each]
    assert guesses == [
        "the questions of answer files are guessed by their numbers to be vicuna_bench's; "
        "--questions of bench.report names another set"
    ]


def test_the_questions_beside_the_answers_come_first(cached, tmp_path, monkeypatch):
    """As they lie in FastChat's layout."""
    file = answers(tmp_path / "bench" / "model_answer" / "m.jsonl", choice("x"), choice("y"))
    beside = questions(tmp_path / "bench" / "question.jsonl", "own")
    monkeypatch.chdir(file.parent)
    source = open_answers(Path("m.jsonl"))
    assert list(source.frame.category) == ["own", "own"] and source.questions[1] == ("own",)
    assert not source.warnings
    named = questions(tmp_path / "named.jsonl", "named")
    assert set(open_answers(file, str(named)).frame.category) == {"named"}
    questions(beside, "own", count=1)  # It has not all of them.
    assert set(open_answers(file).frame.category) == {"cached"}
    beside.write_text("{\n")
    damaged, guess = open_answers(file).warnings
    assert "question.jsonl, line 1" in damaged and damaged.endswith("; the file is left aside")
    assert "vicuna_bench" in guess


def test_of_many_failed_turns_the_first_are_named(tmp_path):
    """There was a line for each of them."""
    file = answers(tmp_path / "m.jsonl", choice("x"), *[choice("ERROR")] * 1000)
    warnings = [each for each in open_answers(file).warnings if "recorded as an error" in each]
    assert [each.split(",")[0] for each in warnings[:3]] == [
        f"m.jsonl: question {number}" for number in (2, 3, 4)
    ]
    assert warnings[3:] == ["m.jsonl: 997 more turns are recorded as an error; they are left out"]


def test_answers_without_counts_are_told(tmp_path):
    """They were in no number, without a word, and the file was called complete."""
    bare = {"turns": ["x"]}
    half = {"turns": ["x"], "new_tokens": [2]}
    file = answers(tmp_path / "m.jsonl", choice("x"), bare, half, {"turns": ["ERROR"]}, choice("y"))
    source = open_answers(file)
    [warning] = [each for each in source.warnings if "no counts" in each]
    assert warning == (
        "m: 2 of 4 answers have no counts of tokens and steps, first question 2; they are in no "
        "number"
    )
    assert len(source.frame) == 2 and not source.complete
    whole = open_answers(answers(tmp_path / "m.jsonl", choice("x"), choice("y")))
    assert whole.complete and not any("no counts" in each for each in whole.warnings)


def test_answers_with_impossible_counts_are_not_complete(tmp_path):
    impossible = {"turns": ["x"], "idxs": [8], "new_tokens": [2]}
    source = open_answers(answers(tmp_path / "m.jsonl", choice("x"), impossible))
    assert "impossible counts" in " ".join(source.warnings) and not source.complete


def test_the_page_has_the_accept_lengths_of_the_numbers(tmp_path):
    """Of a last step it counted more tokens than the answer kept."""
    cut = {
        "turns": ["x", "y"],
        "decoding_steps": [2, 1],
        "new_tokens": [4, 2],
        "accept_lengths": [3, 3, 2],
    }
    source = open_answers(answers(tmp_path / "m.jsonl", cut))
    assert [turn.accept_lengths for turn in source.turns] == [[3, 1], [2]]
    assert [each.tolist() for each in source.frame.accept_lengths] == [[3, 1], [2]]


def test_of_two_files_of_one_model_it_is_said_which_is_which(tmp_path):
    files = [answers(tmp_path / name, choice("x")) for name in ("a.jsonl", "b.jsonl", "c.jsonl")]
    made = Report.of([open_answers(file) for file in files])
    assert list(made.baselines) == ["m", "m (2)", "m (3)"]
    assert f"m is {files[0]}; m (2) is {files[1]}; m (3) is {files[2]}" in made.warnings


def test_answers_of_no_named_model_are_called_as_their_file(tmp_path):
    file = answers(tmp_path / "mine.jsonl", choice("x"), model=None)
    assert open_answers(file).labels == ("mine",)


@pytest.mark.parametrize("name", ["run.json", "turns.jsonl", "trees.jsonl"])
def test_a_file_of_a_run_is_answered_with_its_folder(name, tmp_path):
    """It was called an answer file without choices."""
    run = write_run(tmp_path / "run", [make_turn()])
    (run / name).touch()
    opened, [error] = open_sources(run / name)
    assert not opened
    assert str(error) == f"{run / name} is a part of a run; give the run's folder, {run}"


def test_a_run_without_run_json_is_shown_by_its_answers(tmp_path):
    run = write_run(tmp_path / "run", [make_turn(text="Yes.")])
    record = run / "run.json"
    write_answers(run, read_run(run), [make_turn(text="Yes.")])
    record.unlink()
    [source], errors = open_sources(run)
    assert not errors and source.labels == ("demo-dynamic",)
    assert source.warnings[0] == (
        f"{run} is not a run's folder: it has no run.json; its answer files are shown instead"
    )
    shutil.rmtree(run / "answers")
    opened, [error] = open_sources(run)
    assert not opened and "it has no run.json" in str(error)
