"""Result tables: the published averages, FastChat's own numbers, and intervals that hold."""

import io
import json
import sys
import types
from argparse import Namespace
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bench.common.errors import UserError
from llm_judge import show_result
from llm_judge.judge_folder import Bench
from llm_judge.judging import Match
from llm_judge.judgments import has_verdict, read_judgments
from llm_judge.result_tables import by_turn, unequal, win_rates, with_interval
from tests.helpers.paths import SHARED

PUBLISHED = SHARED / "mt_bench"
MEDUSA = "medusa-vicuna-7b-v1.3-1-temperature-0.0-posterior_threshold-0.09-posterior_alpha-0.3"
published = pytest.mark.skipif(
    not PUBLISHED.is_dir(), reason=f"the published judgments are not at {PUBLISHED}"
)


@pytest.fixture
def mt_bench(tmp_path):
    """The published files in FastChat's layout."""
    bench = tmp_path / "data" / "mt_bench"
    for name, source in {
        "question.jsonl": "fastchat/question.jsonl",
        "reference_answer/gpt-4.jsonl": "fastchat/reference_answer/gpt-4.jsonl",
        f"model_answer/{MEDUSA}.jsonl": f"medusa/model_answer/{MEDUSA}.jsonl",
        "model_judgment/gpt-4_single.jsonl": "medusa/model_judgment/gpt-4_single.jsonl",
    }.items():
        (bench / name).parent.mkdir(parents=True, exist_ok=True)
        (bench / name).symlink_to(PUBLISHED / source)
    return bench


def show(monkeypatch, capsys, *flags):
    monkeypatch.setattr(sys, "argv", ["show_result", *flags])
    show_result.main()
    return capsys.readouterr().out


def test_models_with_fewer_grades_are_named():
    grades = pd.DataFrame(
        [("a", 1, 1, 5.0), ("a", 1, 2, 5.0), ("b", 1, 1, 9.0), ("c", 1, 2, 5.0), ("c", 1, 1, 5.0)],
        columns=["model", "question_id", "turn", "score"],
    )
    assert unequal(grades) == [
        "b has grades of 1 of the 2 turns that any model has: its means are of fewer"
    ]


def cells(text, *words):
    """The numbers of the first table row that has all these words."""
    rows = [line for line in text.splitlines() if line.startswith("│")]
    row = next(line for line in rows if all(f" {word} " in line for word in words))
    texts = row.replace("│", " ").split()
    return [float(text) for text in texts if text.replace(".", "").isdigit()]


@published
def test_the_published_averages(mt_bench, monkeypatch, capsys):
    said = show(monkeypatch, capsys, "--data-dir", str(mt_bench.parent))
    assert "480 judgments" in said and "without a verdict" not in said
    average = said[said.index("Average") :]
    assert cells(average, MEDUSA) == [5.9875]
    assert cells(average, "vicuna-7b-v1.3") == [6.1031]
    assert cells(average, "vicuna-7b-v1.3-greedy") == [5.8781]
    assert cells(average, "humanities", MEDUSA)[0] == 9.15
    beside = said[said.index("Speed and quality") :]
    # There is no wall-clock ratio, as the baseline's answers are not there.
    assert cells(beside, MEDUSA)[:2] == [2.57, 5.99]


@published
def test_speed_against_quality_is_drawn(mt_bench, tmp_path, monkeypatch, capsys):
    """Beside a baseline that takes twice as long over the same tokens."""
    content = (mt_bench / "model_answer" / f"{MEDUSA}.jsonl").read_text()
    rows = [json.loads(line) for line in content.splitlines()]
    for row in rows:
        row["model_id"] = "vicuna-7b-v1.3-greedy"
        for choice in row["choices"]:
            choice["wall_time"] = [2 * seconds for seconds in choice["wall_time"]]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (mt_bench / "model_answer" / "vicuna-7b-v1.3-greedy.jsonl").write_text(lines)
    flags = ["--data-dir", str(mt_bench.parent), "--baseline-model", "vicuna-7b-v1.3-greedy"]
    flags += ["--figure", str(tmp_path / "f")]
    said = show(monkeypatch, capsys, *flags)
    assert cells(said[said.index("Speed and quality") :], MEDUSA)[:3] == [2.57, 2.0, 5.99]
    assert {path.name for path in (tmp_path / "f").iterdir()} == {"quality.png", "quality.svg"}
    with pytest.raises(UserError, match="no figure: none of the judged models has an answer file"):
        show(monkeypatch, capsys, *flags, "--model-list", "vicuna-7b-v1.3")


@published
def test_the_tables_are_fastchats_own(mt_bench, monkeypatch):
    """FastChat's show_result reads the same file, and prints the same means."""
    from fastchat.llm_judge.show_result import display_result_single

    monkeypatch.chdir(mt_bench.parents[1])
    out = io.StringIO()
    with (
        redirect_stdout(out),
        pd.option_context("display.max_colwidth", None, "display.width", 200),
    ):
        display_result_single(
            Namespace(input_file=None, bench_name="mt_bench", judge_model="gpt-4", model_list=None)
        )
    rows = read_judgments(Path("data/mt_bench/model_judgment/gpt-4_single.jsonl"))
    for title, means in by_turn(pd.DataFrame(rows)).items():
        theirs = out.getvalue().split(f"## {title} ##")[1].split("##########")[0]
        for model, mean in means.items():
            line = next(line for line in theirs.splitlines() if line.split()[:1] == [model])
            assert float(line.split()[-1]) == pytest.approx(mean, abs=1e-4)


PAIRS = [  # model_1, model_2, g1_winner, g2_winner
    ("a", "base", "model_1", "model_1"),
    ("a", "base", "model_2", "model_2"),
    ("a", "base", "model_1", "model_2"),
    ("a", "base", "tie", "model_1"),
    ("a", "base", "error", "model_1"),
    ("b", "base", "model_1", "model_1"),
    ("a", "b", "model_2", "model_2"),
]


@pytest.fixture
def pairs(tmp_path):
    path = tmp_path / "data" / "mt_bench" / "model_judgment" / "gpt-4_pair.jsonl"
    path.parent.mkdir(parents=True)
    texts = ("g1_user_prompt", "g1_judgment", "g2_user_prompt", "g2_judgment")
    rows = [
        {
            "question_id": n,
            "model_1": one,
            "model_2": two,
            "g1_winner": g1,
            "g2_winner": g2,
            "judge": ["gpt-4", "pair-v2"],
            "turn": 1,
            "tstamp": 0,
            **dict.fromkeys(texts, ""),
        }
        for n, (one, two, g1, g2) in enumerate(PAIRS, start=1)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("baseline", ["base", None])
def test_win_rates_are_fastchats_own(pairs, monkeypatch, baseline):
    from fastchat.llm_judge.show_result import display_result_pairwise

    monkeypatch.chdir(pairs.parents[3])
    out = io.StringIO()
    with redirect_stdout(out):
        display_result_pairwise(
            Namespace(
                input_file=str(pairs),
                bench_name="",
                judge_model="",
                model_list=None,
                baseline_model=baseline,
            )
        )
    ours = win_rates([row for row in read_judgments(pairs) if has_verdict(row)], baseline)
    assert sorted(ours.index) == (["a", "b"] if baseline else ["a", "b", "base"])
    for model, row in ours.iterrows():
        line = next(line for line in out.getvalue().splitlines() if line.split()[:1] == [model])
        assert [float(value) for value in line.split()[1:]] == pytest.approx(list(row), abs=1e-5)


def test_the_pairwise_command(pairs, monkeypatch, capsys):
    flags = ["--data-dir", str(pairs.parents[2]), "--mode", "pairwise-baseline"]
    flags += ["--baseline-model", "base"]
    said = show(monkeypatch, capsys, *flags)
    assert "7 judgments, 1 without a verdict" in said
    assert cells(said, "a") == [1, 1, 2, 0.25, 0.25, 0.5]
    with pytest.raises(UserError, match=r"baseline 'gpt-3\.5-turbo'"):
        show(monkeypatch, capsys, *flags[:4])
    with pytest.raises(UserError, match="another kind"):
        show(monkeypatch, capsys, "--input-file", str(pairs))
    with pytest.raises(UserError, match=r"files there: gpt-4_pair.jsonl\).*gen_judgment"):
        show(monkeypatch, capsys, *flags[:2])


def test_pairs_with_empty_fields_of_grades_are_shown(pairs, monkeypatch, capsys):
    rows = [json.loads(line) | {"model": None, "score": None} for line in pairs.open()]
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    flags = ["--data-dir", str(pairs.parents[2]), "--mode", "pairwise-baseline"]
    said = show(monkeypatch, capsys, *flags, "--baseline-model", "base")
    assert cells(said, "a") == [1, 1, 2, 0.25, 0.25, 0.5]


def grades(scores):
    """A frame of grades. scores: for each question, the grades of its turns."""
    rows = [
        (n, turn, score)
        for n, turns in enumerate(scores)
        for turn, score in enumerate(turns, start=1)
    ]
    return pd.DataFrame(rows, columns=["question_id", "turn", "score"])


def test_the_interval_covers_the_true_mean_as_often_as_it_says():
    """80 questions whose two turns are alike. Drawing turns would make the intervals too narrow."""
    random = np.random.default_rng(0)
    covered = 0
    for _ in range(60):
        own = random.normal(6, 2, 80)
        mean, low, high = with_interval(grades([(score, score + 0.1) for score in own]))
        assert low < mean < high
        covered += low <= 6.05 <= high
    assert 52 <= covered <= 60


def test_an_interval_of_little():
    assert with_interval(grades([(5, 7)]))[0] == 6
    assert np.isnan(with_interval(grades([(5, 7)]))[1])
    assert with_interval(grades([(5, 5), (5, 5)])) == (5, 5, 5)
    # The mean is over judgments, as FastChat's is.
    assert with_interval(grades([(4,), (8, 6)]))[0] == 6


def test_unread_replies_are_counted_and_in_no_average(tmp_path, monkeypatch, capsys):
    path = tmp_path / "j_single.jsonl"
    row = {
        "model": "m",
        "judge": ["j", "single-v1"],
        "user_prompt": "",
        "judgment": "",
        "turn": 1,
        "tstamp": 0,
    }
    rows = [{**row, "question_id": n, "score": score} for n, score in enumerate([8, -1, 4.5])]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"torn')
    where = ["--data-dir", str(tmp_path), "--bench-name", "sample"]
    said = show(monkeypatch, capsys, "--input-file", str(path), *where)
    assert "3 judgments, 1 without a verdict" in said
    assert cells(said, "m") == [6.25]
    path.write_text(json.dumps(rows[1]) + "\n")
    with pytest.raises(UserError, match="no verdict"):
        show(monkeypatch, capsys, "--input-file", str(path))
    path.write_text(json.dumps({"question_id": 1, "model": "m", "score": 3}) + "\n")
    with pytest.raises(UserError, match="line 1 is not a judgment: it has no 'judge'"):
        show(monkeypatch, capsys, "--input-file", str(path))


def write_grades(path, *rows):
    """A judgment file. rows: fields that differ from one grade of question 1."""
    base = {"question_id": 1, "model": "m", "judge": ["j", "single-v1"], "turn": 1, "tstamp": 0}
    base |= {"user_prompt": "", "judgment": "", "score": 5}
    path.write_text("".join(json.dumps(base | row) + "\n" for row in rows))


@pytest.fixture
def shown(tmp_path, monkeypatch, capsys):
    """A function that shows these grades (as `write_grades`): what is printed, and warned of."""

    def shown(*rows, flags=()):
        path = tmp_path / "j_single.jsonl"
        write_grades(path, *rows)
        where = ["--data-dir", str(tmp_path), "--bench-name", "sample", "--input-file", str(path)]
        monkeypatch.setattr(sys, "argv", ["show_result", *where, *flags])
        show_result.main()
        return capsys.readouterr()

    return shown


def test_all_grades_of_an_answer_count(shown):
    said = shown(*({"score": score} for score in (9, 9, 3)))
    assert "3 judgments" in said.out and cells(said.out, "m") == [7.0]
    assert "judged more than once; all of these judgments count" in said.err


def test_a_model_without_judgments_is_named(shown):
    said = shown({}, flags=["--model-list", "m", "typo"])
    assert cells(said.out, "m") == [5.0] and "no judgments of typo to show" in said.err
    assert "no judgments of" not in shown({}, flags=["--model-list", "m"]).err


def test_turns_with_impossible_counts_are_in_no_speed(shown, tmp_path):
    """As in the report."""
    counts = {1: {"idxs": [4], "new_tokens": [10]}, 2: {"idxs": [9], "new_tokens": [0]}}
    rows = [
        {"question_id": n, "model_id": "m", "choices": [{"turns": ["Yes."], **count}]}
        for n, count in counts.items()
    ]
    path = tmp_path / "sample" / "model_answer" / "m.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    said = shown({})
    assert cells(said.out[said.out.index("Speed and quality") :], "m")[0] == 2.0
    assert "1 of 2 turns have impossible counts" in said.err


def test_two_judges_are_never_averaged(shown):
    rows = [
        {"judge": [judge, "single-v1"], "score": score} for judge, score in (("j", 9), ("k", 3))
    ]
    with pytest.raises(UserError, match=r"several judges \(j: 1, k: 1\), none of them 'gpt-4'"):
        shown(*rows)
    said = shown(*rows, flags=["--judge-model", "k"])
    assert cells(said.out, "m") == [3.0] and "those of k are shown" in said.err


def test_grades_by_several_rubrics_are_said(shown):
    rows = [{"prompt_sha256": "kind", "score": 9}, {"model": "n", "prompt_sha256": "strict"}]
    assert "the prompt single-v1 is there in several versions" in shown(*rows).err
    assert "several" not in shown(*rows[:1]).err


def test_grades_of_questions_that_the_bench_does_not_have_are_said(shown):
    said = shown({"score": 4}, {"question_id": 999, "score": 10})
    assert "1 of 2 judgments are of questions that the bench does not have (999)" in said.err
    assert cells(said.out, "all", "m")[0] == 4.0
    said = shown({"question_id": 999})
    assert "By category" not in said.out and cells(said.out, "m") == [5.0]


def test_means_over_other_questions_are_said(shown):
    said = shown({}, {"question_id": 2}, {"model": "n"})
    assert "n has grades of 1 of the 2 turns that any model has" in said.err
    assert "m has grades of" not in said.err
    assert "has grades of" not in shown({}, {"model": "n"}).err


def test_a_third_turn_has_a_table_of_its_own(shown):
    said = shown(*({"turn": turn, "score": 2 * turn} for turn in (1, 2, 3)))
    assert cells(said.out[said.out.index("Turn 3") :], "m") == [6.0]
    assert cells(said.out[said.out.index("Average") :], "m") == [4.0]


@published
def test_fastchats_reader_and_browser_read_the_folder(mt_bench, monkeypatch):
    """Its module imports openai<1 and anthropic. It needs neither to read files."""
    for name in ("openai", "anthropic"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    common = pytest.importorskip("fastchat.llm_judge.common")
    answers = common.load_model_answers(str(mt_bench / "model_answer"))
    assert len(answers[MEDUSA]) == 80
    judgments = common.load_single_model_judgments(
        str(mt_bench / "model_judgment" / "gpt-4_single.jsonl")
    )
    for question in common.load_questions(str(mt_bench / "question.jsonl"), 0, None):
        for multi_turn in (False, True):  # What the browser does when a question is clicked.
            of_prompt = common.resolve_single_judgment_dict(
                question, judgments, judgments, multi_turn=multi_turn
            )
            assert (question["question_id"], MEDUSA) in of_prompt
    assert Bench.of("mt_bench", mt_bench.parent).models() == list(answers)

    match = Match(101, 1, ("b", "a"), "pair-math-v1", "", ("b first", "a first"))
    ours = mt_bench / "ours_pair.jsonl"
    ours.write_text(json.dumps(match.row("gpt-4", ["[[A]]", "[[B]]"], 0.0)) + "\n")
    [read] = common.load_pairwise_model_judgments(str(ours)).values()
    assert read == {
        (101, "a", "b"): {"winners": ("model_2",), "g1_judgment": "[[B]]", "g2_judgment": "[[A]]"}
    }
