"""The judge command against a scripted server that does what real endpoints do on a bad day."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from threading import Event
from urllib.request import urlopen

import pytest

from bench.common.errors import UserError
from bench.common.files import read_rows
from bench.inputs import published_sets
from bench.inputs.questions import SAMPLE_FOLDER
from llm_judge.judge_folder import OWN_PROMPTS
from llm_judge.judgments import read_judgments
from tests.helpers.checkpoints import write_base
from tests.helpers.judges import Judge, fails, say
from tests.helpers.loopback import server
from tests.helpers.paths import ROOT

pytest.importorskip("openai", reason="the judge needs the extra `judge`")
OFFICIAL = ROOT.parent / "shared" / "data" / "mt_bench"


def wait_until(condition):
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def answers(url):
    try:
        return urlopen(url, timeout=1).status == 200
    except OSError:
        return False


def lines(path):
    return path.read_text().count("\n") if path.exists() else 0


def drip(head):
    """An answer that sends `head`, and then a byte now and then, without end."""

    def answer(request):
        request.wfile.write(head)
        with suppress(OSError):  # Once the judge has hung up.
            while True:
                request.wfile.write(b" ")
                request.wfile.flush()
                time.sleep(0.1)

    return answer


# By answer: what the endpoint does, and the score in the end.
CASES = {
    "plain": (["Good. [[7]]"], 7),
    "bracket": (["Rating: [7]"], 7),
    "halves": (["[[8.5]]"], 8.5),
    "eleven": (["[[11]]"], -1),
    "twofold": (["[[3]] at first, but [[9]]"], 9),
    "wordy": (["It is rather nice."], -1),
    "refused": ([lambda request: say(request, None, refusal="I will not judge this.")], -1),
    "limited": ([fails(429, Retry_After="0.4"), "[[6]]"], 6),
    "broken": ([fails(500), fails(503), "[[6]]"], 6),
    "slow": ([lambda request: time.sleep(1.4) or request.drop(), "[[6]]"], 6),
    "dripping body": (
        [drip(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n"), "[[6]]"],
        6,
    ),
    "dripping head": ([drip(b"HTTP/1.1 200 OK\r\nX-Long:"), "[[6]]"], 6),
    "dripping refusal": (
        [drip(b"HTTP/1.1 500 No\r\nContent-Type: text/plain\r\n\r\n"), "[[6]]"],
        6,
    ),
    "dropped": ([lambda request: request.drop(), "[[6]]"], 6),
    "malformed": (
        [
            lambda request: request.send(200, b'{"choices": [', Content_Type="application/json"),
            "[[6]]",
        ],
        6,
    ),
    "hollow": (
        [lambda request: request.send(200, b"{}", Content_Type="application/json"), "[[6]]"],
        6,
    ),
    "html": ([lambda request: request.send(200, b"<p>busy", Content_Type="text/html"), "[[6]]"], 6),
    "hopeless": ([fails(400, "the prompt is too long"), "[[6]]"], None),
}


def test_every_bad_day_of_an_endpoint(bench, monkeypatch, capsys):
    bench.questions(len(CASES))
    bench.answers("m", {n: [name] for n, name in enumerate(CASES, start=1)})
    judge = Judge({name: steps for name, (steps, _) in CASES.items()})
    with server(judge) as url:
        assert bench.judge(monkeypatch, url, "--parallel", "4", "--timeout", "1") == 1
        said = capsys.readouterr()
        scores = {row["question_id"]: row["score"] for row in read_judgments(bench.single)}
        expected = dict(enumerate((score for _, score in CASES.values()), start=1))
        assert scores == {n: score for n, score in expected.items() if score is not None}
        assert "17 of 18 judgments, 3 of them without a verdict" in said.out
        assert "1,700 tokens of prompts, 170 of replies" in said.out
        assert "the prompt is too long" in said.err
        assert "1 calls failed and are no scores" in said.err

        # What the server asked for, although the back-off is far shorter.
        asked = [at for user, _, at in judge.asked if "limited" in user]
        assert asked[1] - asked[0] >= 0.4

        before = len(judge.asked)
        assert bench.judge(monkeypatch, url) == 0  # Only what failed is asked again.
        assert ["hopeless" in user for user, _, _ in judge.asked[before:]] == [True]
        assert bench.judge(monkeypatch, url) == 0  # And then nothing.
        assert len(judge.asked) == before + 1
    assert len(read_judgments(bench.single)) == lines(bench.single) == 18


def test_a_killed_judge_loses_nothing_and_asks_nothing_twice(bench, monkeypatch):
    bench.questions(12)
    bench.answers("m", {n: [f"<answer {n}>"] for n in range(1, 13)})
    hold = Event()
    judge = Judge(
        {
            f"<answer {n}>": [lambda request: hold.wait(20) and say(request, "[[4]]"), "[[4]]"]
            for n in (6, 7)
        }
    )
    with server(judge) as url:
        process = bench.start(url, "--parallel", "2")
        wait_until(lambda: lines(bench.single) == 5 and len(judge.asked) == 7)
        process.kill()
        process.communicate()
        kept = bench.single.read_text()
        with bench.single.open("a") as out:  # As if it had been killed within a write.
            out.write('{"question_id": 6, "model": "m", "jud')
        assert bench.judge(monkeypatch, url, "--parallel", "2") == 0
        hold.set()
    assert bench.single.read_text().startswith(kept)
    assert sorted(row["question_id"] for row in read_judgments(bench.single)) == list(range(1, 13))
    assert lines(bench.single) == 12
    twice = [user for user, times in judge.prompts.items() if times > 1]
    assert len(twice) == 2  # The two that were under way.


def test_an_interrupted_judge_takes_in_what_is_under_way(bench):
    bench.questions(6)
    bench.answers("m", {n: [f"<answer {n}>"] for n in range(1, 7)})
    hold = Event()
    judge = Judge({"<answer 3>": [lambda request: hold.wait(20) and say(request, "[[4]]")]})
    with server(judge) as url:
        process = bench.start(url)
        wait_until(lambda: len(judge.asked) == 3)
        process.send_signal(signal.SIGINT)
        assert any("taking in what is under way" in line for line in process.stdout)
        hold.set()
        said, _ = process.communicate(timeout=20)
    assert process.returncode == 130 and "every judgment that arrived is kept" in said
    assert [row["question_id"] for row in read_judgments(bench.single)] == [1, 2, 3]


def test_half_a_pair_is_kept_over_a_kill(bench, monkeypatch):
    bench.questions(3)
    for model in ("one", "two"):
        bench.answers(model, {n: [f"<{model} {n}>"] for n in (1, 2, 3)})
    hold = Event()
    judge = Judge(default="[[A]]")

    def fourth(request):
        hold.wait(20) and say(request, "[[A]]")

    judge.script = {"<two 2>\n=== End of reply A": [fourth, "[[A]]"]}
    with server(judge) as url:
        process = bench.start(url, "--mode", "pairwise-all")
        wait_until(lambda: len(judge.asked) == 4)
        assert lines(bench.pair) == 1
        process.kill()
        process.communicate()
        assert bench.judge(monkeypatch, url, "--mode", "pairwise-all") == 0
        hold.set()
    assert sorted(judge.prompts.values()) == [1, 1, 1, 1, 1, 2]
    assert lines(bench.pair) == 3
    assert [path.name for path in bench.pair.parent.glob("[!.]*")] == ["j_pair.jsonl"]


def test_a_pair_whose_replies_are_both_there_needs_no_call(bench, monkeypatch):
    """Killed between the second reply and the row."""
    bench.questions(1)
    for model in ("one", "two"):
        bench.answers(model, {1: [f"<{model}>"]})
    judge = Judge(default="[[A]]")
    with server(judge) as url:
        assert bench.judge(monkeypatch, url, "--mode", "pairwise-all") == 0
        [row] = read_judgments(bench.pair)
        about = {"question_id": 1, "turn": 1, "models": ["one", "two"], "judge": "j"}
        games = [
            {**about, "user_prompt": row[f"g{n}_user_prompt"], "judgment": row[f"g{n}_judgment"]}
            for n in (1, 2)
        ]
        bench.write(bench.pair.with_name("j_pair.jsonl.games"), games)
        bench.pair.unlink()
        assert bench.judge(monkeypatch, url, "--mode", "pairwise-all") == 0
    assert len(judge.asked) == 2
    assert [{**row, "tstamp": 0} for row in read_judgments(bench.pair)] == [{**row, "tstamp": 0}]


@pytest.mark.parametrize("mode", ["single", "pairwise-all"])
def test_a_baseline_that_is_compared_with_nothing_is_refused(bench, monkeypatch, mode):
    given = ["--mode", mode, "--baseline-model", "base"]
    with pytest.raises(UserError, match=f"--baseline-model has no effect: --mode {mode} has no"):
        bench.judge(monkeypatch, "http://localhost:1/v1", *given)


def test_pairs_are_asked_in_both_orders_and_against_the_baseline(bench, monkeypatch):
    bench.questions(2, turns=2)
    for model in ("base", "better", "same"):
        bench.answers(model, {n: [f"<{model} {n}.1>", f"<{model} {n}.2>"] for n in (1, 2)})
    prefers = "<better 1.1>\n=== End of reply "
    judge = Judge({f"{prefers}A": ["[[A]]"], f"{prefers}B": ["[[B]]"]}, default="[[A]]")
    with server(judge) as url:
        mode = ["--mode", "pairwise-baseline", "--baseline-model", "base"]
        assert bench.judge(monkeypatch, url, *mode) == 0
    rows = read_judgments(bench.pair)
    contests = {(row["model_1"], row["model_2"]) for row in rows}
    assert len(rows) == 8 and contests == {("better", "base"), ("same", "base")}
    [first] = [
        row for row in rows if (row["question_id"], row["turn"], row["model_1"]) == (1, 1, "better")
    ]
    assert (first["g1_winner"], first["g2_winner"]) == ("model_1", "model_1")
    assert first["g1_user_prompt"].index("<better") < first["g1_user_prompt"].index("<base")
    assert first["g2_user_prompt"].index("<base") < first["g2_user_prompt"].index("<better")
    # A judge that always likes the first answer prefers neither model.
    others = [(row["g1_winner"], row["g2_winner"]) for row in rows if row is not first]
    assert others == [("model_1", "model_2")] * 7


def test_equal_answers_are_asked_once(bench, monkeypatch):
    """Two lossless decoders answer the same, so both orders make the same prompt."""
    bench.questions(1)
    bench.answers("one", {1: ["same"]})
    bench.answers("two", {1: ["same"]})
    judge = Judge(default="[[A]]")
    with server(judge) as url:
        assert bench.judge(monkeypatch, url, "--mode", "pairwise-all") == 0
    [row] = read_judgments(bench.pair)
    assert len(judge.asked) == 1 and (row["g1_winner"], row["g2_winner"]) == ("model_1", "model_2")


def prompts_of(question, said, right):
    """The whole user prompts for the first and the second turn, by our own templates.

    said: the texts of the answer's two turns. right: those of the reference. None: there is none.
    """
    (ask_1, ask_2), (say_1, say_2) = question["turns"], said
    first, second = f"=== User ===\n{ask_1}\n\n", ""
    if right is not None:
        first += f"=== Correct answer ===\n{right[0]}\n=== End of correct answer ===\n\n"
        second = (
            f"=== Correct answers ===\n\nUser: {ask_1}\n\nCorrect answer: {right[0]}\n\n"
            f"User: {ask_2}\n\nCorrect answer: {right[1]}\n\n"
            "=== End of correct answers ===\n\n\n"
        )
    first += f"=== Assistant ===\n{say_1}\n=== End of the reply ==="
    second += (
        f"=== Conversation ===\n\nUser: {ask_1}\n\nAssistant: {say_1}\n\n"
        f"User: {ask_2}\n\nAssistant: {say_2}\n\n=== End of conversation ==="
    )
    return first, second


def test_the_whole_prompt_that_is_sent(bench, monkeypatch):
    """Of all categories, with the references of three of them, both turns, every character."""
    rows = map(json.loads, (SAMPLE_FOLDER / "question.jsonl").open())
    questions = {row["question_id"]: row for row in rows}
    rows = map(json.loads, (SAMPLE_FOLDER / "reference_answer" / "reference.jsonl").open())
    references = {row["question_id"]: row["choices"][0]["turns"] for row in rows}
    answers = {
        number: [f"My answer {{to}} {number}.", f"My second answer to {number}."]
        for number in questions
    }
    bench.folder = bench.data / "sample"
    bench.answers("m", answers)
    judge = Judge()
    with server(judge) as url:
        assert bench.judge(monkeypatch, url, "--bench-name", "sample", "--parallel", "4") == 0
    sent = {user: body for user, body, _ in judge.asked}
    assert len(sent) == 48
    for number, question in questions.items():
        has_reference = question["category"] in ("reasoning", "math", "coding")
        right = references[number] if has_reference else None
        first, second = prompts_of(question, answers[number], right)
        for prompt in (first, second):
            body = sent.pop(prompt)
            assert [message["role"] for message in body["messages"]] == ["system", "user"]
            system = body["messages"][0]["content"]
            assert ("correct answer" in system.lower()) == has_reference
            assert ("second reply only" in system) == (prompt is second)
            assert (body["model"], body["temperature"], body["max_tokens"]) == ("j", 0, 2048)
            assert body.keys() == {"model", "messages", "temperature", "max_tokens"}
    assert sent == {}


def test_published_answers_are_judged_with_the_published_prompts(bench, monkeypatch, tmp_path):
    """All but the answers comes from the mirror: questions, references and prompts."""
    if not OFFICIAL.is_dir():
        pytest.skip(f"the official files are not at {OFFICIAL}")
    for remote in published_sets.SETS["mt_bench"].values():
        there = tmp_path / "mirror" / remote.repository / remote.commit / remote.path
        there.parent.mkdir(parents=True, exist_ok=True)
        there.symlink_to(
            OFFICIAL
            / "fastchat"
            / remote.path.removeprefix("fastchat/llm_judge/data/").removeprefix("mt_bench/")
        )
    monkeypatch.setenv(published_sets.MIRROR, (tmp_path / "mirror").as_uri())
    monkeypatch.setenv(published_sets.CACHE, str(tmp_path / "cache"))
    name = "medusa-vicuna-7b-v1.3-1-temperature-0.0-posterior_threshold-0.09-posterior_alpha-0.3"
    bench.folder = bench.data / "mt_bench"
    (bench.folder / "model_answer").mkdir(parents=True)
    (bench.folder / "model_answer" / f"{name}.jsonl").symlink_to(
        OFFICIAL / "medusa" / "model_answer" / f"{name}.jsonl"
    )
    judge = Judge()
    with server(judge) as url:
        assert bench.judge(monkeypatch, url, "--bench-name", "mt_bench", "--parallel", "8") == 0
    published = read_judgments(OFFICIAL / "medusa" / "model_judgment" / "gpt-4_single.jsonl")
    assert set(judge.prompts) == {row["user_prompt"] for row in published if row["model"] == name}
    assert len(judge.asked) == len(read_judgments(bench.single)) == 160
    assert (bench.folder / "question.jsonl").is_file()  # Where FastChat's tools look for it.


def test_a_real_server_with_a_real_model(bench, monkeypatch, capsys, tmp_path):
    """`transformers serve` with a random model as the judge: its replies find no end."""
    pytest.importorskip("uvicorn", reason="transformers serve needs its extra `serving`")
    folder = tmp_path / "noise"
    write_base(folder, max_position_embeddings=2048)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    serve = Path(sys.executable).with_name("transformers")
    where = ["--device", "cpu", "--host", "127.0.0.1", "--port", str(port)]
    command = [str(serve), "serve", str(folder), *where]
    log = (tmp_path / "log").open("w")
    env = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    process = subprocess.Popen(command, stdout=log, stderr=log, env=env)
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: process.poll() is not None or answers(url + "/health"))
        assert process.poll() is None, (tmp_path / "log").read_text()
        bench.questions(2, turns=2)
        bench.answers("m", {n: ["one", "two"] for n in (1, 2)})
        given = ["--judge-model", str(folder), "--max-tokens", "8", "--parallel", "2"]
        for _ in range(2):  # The second time it asks for all of them again.
            assert bench.judge(monkeypatch, url, *given) == 1
            shown = capsys.readouterr()
            assert "0 there already; 4 calls" in shown.out and "0 of 4 judgments" in shown.out
            assert "failed 4x: the reply was cut off (finish_reason length)" in shown.err
    finally:
        process.terminate()
        process.wait(20)


def test_a_dry_run_counts_and_calls_nobody(bench, monkeypatch, capsys):
    monkeypatch.delenv("OPENAI_API_KEY")
    bench.questions(3, turns=2)
    for model in "abc":
        bench.answers(model, {n: [f"{model}{n}", f"{model}{n} again"] for n in (1, 2, 3)})
    nowhere = "http://127.0.0.1:9"
    for mode, calls in (("single", 18), ("pairwise-all", 36)):
        assert bench.judge(monkeypatch, nowhere, "--mode", mode, "--dry-run") == 0
        assert f"18 judgments, 0 there already; {calls} calls to make" in capsys.readouterr().out
    some = ["--first-n", "1", "--model-list", "b"]
    assert bench.judge(monkeypatch, nowhere, *some, "--dry-run") == 0
    assert "2 judgments, 0 there already; 2 calls" in capsys.readouterr().out
    assert not bench.single.parent.exists()


def test_holes_and_failed_answers_are_said_and_not_judged(bench, monkeypatch, capsys):
    bench.questions(5, turns=2)
    bench.answers(
        "m", {1: ["one", "two"], 2: ["only one"], 3: ["ERROR", "x"], 4: ["fine", "$ERROR$"]}
    )
    judge = Judge()
    with server(judge) as url:
        assert bench.judge(monkeypatch, url) == 0
    said = capsys.readouterr().err
    assert "m has no answer in turn 1 to 2 of 5 questions (3, 5)" in said
    assert "m has no answer in turn 2 to 4 of 5 questions (2, 3, 4, 5)" in said
    judged = [(row["question_id"], row["turn"]) for row in read_judgments(bench.single)]
    assert judged == [(1, 1), (1, 2), (2, 1), (4, 1)]


def test_a_call_that_fastchat_recorded_as_failed_is_asked_again(bench, monkeypatch):
    bench.questions(1)
    bench.answers("m", {1: ["text"]})
    row = {
        "question_id": 1,
        "model": "m",
        "judge": ["j", "single-v1"],
        "user_prompt": "",
        "turn": 1,
        "tstamp": 0,
    }
    bench.write(bench.single, [{**row, "judgment": "$ERROR$", "score": -1}])
    with server(Judge()) as url:
        assert bench.judge(monkeypatch, url) == 0
    [row] = map(json.loads, bench.single.read_text().splitlines())
    assert row["score"] == 5


def test_an_absence_is_no_judgment_and_is_asked_again(bench, monkeypatch, capsys):
    """A reply that is empty, cut off or withheld, or has thoughts alone."""
    absences = {
        "cut": [lambda request: say(request, "It is good because [[3", "length"), "[[5]]"],
        "cut later": [lambda request: say(request, "Not [[3]], as it", "max_tokens"), "[[5]]"],
        "empty": [lambda request: say(request, ""), "[[5]]"],
        "none": [lambda request: say(request, None, "length", reasoning_content="Hm"), "[[5]]"],
        "withheld": [lambda request: say(request, None, "content_filter"), "[[5]]"],
        "thoughts": ["<think>Should it be [[3]]?", "[[5]]"],
    }
    bench.questions(len(absences))
    bench.answers("m", {n: [f"<{name}>"] for n, name in enumerate(absences, start=1)})
    judge = Judge({f"<{name}>": steps for name, steps in absences.items()})
    with server(judge) as url:
        assert bench.judge(monkeypatch, url) == 1
        assert len(judge.asked) == 6 and lines(bench.single) == 0
        said = capsys.readouterr().err
        assert "cut off (finish_reason max_tokens); a larger --max-tokens" in said
        assert "failed 2x" in said and "(question 1, 4)" in said  # The most frequent ones first.
        assert bench.judge(monkeypatch, url, "--max-tokens", "8192") == 0
    assert [row["score"] for row in read_judgments(bench.single)] == [5] * 6


def test_an_empty_judgment_of_an_earlier_version_is_asked_again(bench, monkeypatch):
    bench.questions(2)
    bench.answers("m", {1: ["one"], 2: ["two"]})
    with server(Judge({"two": [lambda request: say(request, "No grade."), "[[6]]"]})) as url:
        assert bench.judge(monkeypatch, url) == 0
        rows = [json.loads(line) for line in bench.single.read_text().splitlines()]
        assert [row["score"] for row in rows] == [5, -1]
        bench.write(bench.single, [rows[0] | {"judgment": "", "score": -1}, rows[1]])
        assert bench.judge(monkeypatch, url) == 0
        assert [row["score"] for row in read_judgments(bench.single)] == [-1, 5]
        # A reply without a verdict is a reply. It is asked for again where that is wanted.
        assert bench.judge(monkeypatch, url, "--ask-again") == 0
    assert [row["score"] for row in read_judgments(bench.single)] == [5, 6]


def test_what_is_asked_again_stays_until_the_new_reply_is_there(bench, monkeypatch):
    bench.questions(2)
    bench.answers("m", {1: ["<one>"], 2: ["<two>"]})
    with server(Judge({"<one>": ["Who knows."]})) as url:
        assert bench.judge(monkeypatch, url) == 0
    before = bench.single.read_bytes()
    refused = pytest.raises(UserError, match="refuses the key")
    with server(Judge({"<one>": [fails(401)]})) as url, refused:
        bench.judge(monkeypatch, url, "--ask-again")
    assert bench.single.read_bytes() == before
    with server(Judge()) as url:
        assert bench.judge(monkeypatch, url, "--ask-again") == 0
    assert lines(bench.single) == 2
    assert [row["score"] for row in read_judgments(bench.single)] == [5, 5]


def test_both_replies_of_a_pair_are_asked_again(bench, monkeypatch):
    """Also where they still wait beside the file, as another pair's calls failed."""
    bench.questions(2)
    for model in ("one", "two"):
        bench.answers(model, {n: [f"<{model} {n}>"] for n in (1, 2)})
    unread = ["Who knows."] * 2 + ["It depends."] * 2
    judge = Judge({"<one 1>": [*unread, "[[C]]"], "<one 2>": [fails(400)]})
    with server(judge) as url:
        for again, calls in (([], 4), (["--ask-again"], 8), (["--ask-again"], 12)):
            assert bench.judge(monkeypatch, url, "--mode", "pairwise-all", *again) == 1
            assert len(judge.asked) == calls
    [row] = read_judgments(bench.pair)
    assert (row["g1_winner"], row["g2_winner"]) == ("tie", "tie")


def test_a_torn_end_of_the_waiting_replies_is_mended(bench, monkeypatch, capsys):
    """As if the command had been killed within a write: the next reply has a line of its own."""
    bench.questions(2)
    for model in ("one", "two"):
        bench.answers(model, {n: [f"<{model} {n}>"] for n in (1, 2)})
    later = {f"<one {n}>\n=== End of reply B": [fails(400), "[[B]]"] for n in (1, 2)}
    judge = Judge(later, default="[[A]]")
    games = bench.pair.with_name("j_pair.jsonl.games")
    with server(judge) as url:
        assert bench.judge(monkeypatch, url, "--mode", "pairwise-all", "--first-n", "1") == 1
        with games.open("a") as out:
            out.write('{"question_id": 1, "model')
        judge.script["<one 1>\n=== End of reply B"].insert(0, fails(400))
        assert bench.judge(monkeypatch, url, "--mode", "pairwise-all") == 1
        assert games.name in capsys.readouterr().err
        assert [row["question_id"] for _, row in read_rows(games)] == [1, 2]
        assert bench.judge(monkeypatch, url, "--mode", "pairwise-all") == 0
    assert sorted(judge.prompts.values()) == [1, 1, 2, 3]


def test_half_a_pair_waits_while_another_command_ends(bench, monkeypatch):
    bench.questions(1)
    for model in "abcd":
        bench.answers(model, {1: [f"<{model}>"]})
    judge = Judge({"<a>\n=== End of reply B": [fails(400), "[[B]]"]}, default="[[A]]")
    with server(judge) as url:
        for models, status in (("ab", 1), ("cd", 0), ("ab", 0)):
            flags = ["--mode", "pairwise-all", "--model-list", *models]
            assert bench.judge(monkeypatch, url, *flags) == status
    assert len(judge.asked) == 5 and lines(bench.pair) == 2
    assert not bench.pair.with_name("j_pair.jsonl.games").exists()


def test_judgments_of_other_answers_are_not_taken_for_todays(bench, monkeypatch):
    bench.questions(1)
    bench.answers("m", {1: ["before"]})
    with server(Judge()) as url:
        assert bench.judge(monkeypatch, url) == 0
        bench.answers("m", {1: ["after"]})
        with pytest.raises(UserError, match=r"1 judgments of other answers.*question 1, turn 1, m"):
            bench.judge(monkeypatch, url)


@pytest.mark.parametrize(
    "changed",
    [{"system_prompt": "Be strict. End with [[4]]."}, {"prompt_template": "{question} {answer}"}],
)
def test_judgments_by_another_rubric_are_not_taken_for_todays(
    bench, monkeypatch, tmp_path, changed
):
    """Nor are others put beside them, of other questions or of other models."""
    bench.questions(2)
    for model in ("m", "n"):
        bench.answers(model, {1: ["one"], 2: ["two"]})
    rubric = tmp_path / "rubric.jsonl"
    rows = [row for _, row in read_rows(OWN_PROMPTS) if row["type"] == "single"]
    bench.write(rubric, [row | changed for row in rows])
    first = ["--first-n", "1", "--model-list", "m"]
    with server(Judge()) as url:
        assert bench.judge(monkeypatch, url, *first) == 0
        for models in (["m"], ["n"]):
            with pytest.raises(UserError, match=r"1 judgments of other .*another version of the"):
                bench.judge(monkeypatch, url, "--judge-file", str(rubric), "--model-list", *models)
        with pytest.raises(UserError, match=r"temperature 0\.0 there, None now"):
            bench.judge(monkeypatch, url, "--temperature", "none")
    assert lines(bench.single) == 1


@pytest.mark.parametrize("mode", ["single", "pairwise-all"])
@pytest.mark.parametrize(
    "change",
    [
        lambda template: f"Be strict.\n{template}",
        lambda template: f"{template}\nBe strict.",
        lambda template: template.replace("===", "+++"),
    ],
)
@pytest.mark.parametrize("names_prompt", [True, False])
def test_rows_without_a_digest_are_compared_by_their_template(
    bench, monkeypatch, tmp_path, mode, change, names_prompt
):
    """As FastChat writes them: of other models, and of questions that are not asked."""
    bench.questions(2)
    for model in "mnop":
        bench.answers(model, {1: ["one"], 2: [f"two of {model}"]})
    rubric = tmp_path / "rubric.jsonl"
    rows = [row for _, row in read_rows(OWN_PROMPTS)]
    rows = [row | {"prompt_template": change(row["prompt_template"])} for row in rows]
    bench.write(rubric, rows)
    file = bench.single if mode == "single" else bench.pair
    with server(Judge(default="[[A]] [[5]]")) as url:
        some = ["--mode", mode, "--model-list", "m", "n"]
        assert bench.judge(monkeypatch, url, *some) == 0
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        for row in rows:
            del row["prompt_sha256"], row["temperature"]
            row["judge"] = row["judge"] if names_prompt else "j"
        bench.write(file, rows)
        others = ["--mode", mode, "--model-list", "o", "p"]
        with pytest.raises(UserError, match="another version of the prompt"):
            bench.judge(monkeypatch, url, *others, "--judge-file", str(rubric))
        assert len(read_judgments(file)) == len(rows)
        assert bench.judge(monkeypatch, url, *others, "--first-n", "1") == 0
    assert len(read_judgments(file)) > len(rows)


@pytest.mark.parametrize("mode", ["single", "pairwise-all"])
def test_models_are_judged_against_one_reference_answer(bench, monkeypatch, mode):
    """Grades against two references stood in one table."""
    bench.questions(1, category="math")
    for model in ("m", "n", "o", "p"):
        bench.answers(model, {1: [f"answer of {model}"]})

    def judged(url, reference, *flags):
        row = {"question_id": 1, "choices": [{"turns": [reference]}]}
        bench.write(bench.folder / "reference_answer" / "r.jsonl", [row])
        return bench.judge(monkeypatch, url, "--mode", mode, *flags)

    first, others = (["--model-list", *names] for names in (["m", "n"], ["o", "p"]))
    file = bench.single if mode == "single" else bench.pair
    with server(Judge(default="[[A]] [[5]]")) as url:
        assert judged(url, "It is 42.", *first) == 0
        count = lines(file)
        with pytest.raises(UserError, match=r"another question or reference answer"):
            judged(url, "It is 43.", *others)
        with pytest.raises(UserError, match=r"prompt \w+-math-v1 there, \S+ now"):
            judged(url, "It is 42.", *others, "--no-references")
        assert lines(file) == count
        assert judged(url, "It is 42.", *others) == 0


def test_half_a_pair_by_another_system_prompt_is_asked_again(bench, monkeypatch, tmp_path):
    bench.questions(1)
    for model in ("one", "two"):
        bench.answers(model, {1: [f"<{model}>"]})
    judge = Judge({"<one>\n=== End of reply B": [fails(400), "[[B]]"]}, default="[[A]]")
    rows = [row for _, row in read_rows(OWN_PROMPTS) if row["type"] == "pairwise"]
    bench.write(tmp_path / "rubric.jsonl", [row | {"system_prompt": "Be strict."} for row in rows])
    other = ["--judge-file", str(tmp_path / "rubric.jsonl")]
    with server(judge) as url:
        assert bench.judge(monkeypatch, url, "--mode", "pairwise-all") == 1
        assert bench.judge(monkeypatch, url, "--mode", "pairwise-all", *other) == 0
    systems = [body["messages"][0]["content"] for _, body, _ in judge.asked]
    assert systems[2:] == ["Be strict."] * 2


def test_rows_of_other_programs_are_left_as_they_are(bench, monkeypatch, capsys):
    """Lines that are no judgments, repeated ones, and those of another judge in the same file."""
    bench.questions(2)
    bench.answers("m", {1: ["one"], 2: ["two"]})
    judge = Judge()
    with server(judge) as url:
        assert bench.judge(monkeypatch, url, "--first-n", "1") == 0
        [row] = map(json.loads, bench.single.read_text().splitlines())
        del row["prompt_sha256"], row["temperature"]
        before = [row, row | {"judge": ["k", "single-v1"]}, {"question_id": 2}, row]
        bench.write(bench.single, before)
        assert bench.judge(monkeypatch, url) == 0
    said = capsys.readouterr().err
    assert "line 3 is not a judgment: it has no 'judge'; it is left out" in said
    assert "2 judgments do not say their system prompt" in said
    after = [json.loads(line) for line in bench.single.read_text().splitlines()]
    assert after[:4] == before and after[4]["question_id"] == 2 and len(after) == 5
    assert len(judge.asked) == 2


def test_a_category_has_its_reference_in_any_case(bench, monkeypatch):
    bench.questions(1, category="Math ")
    bench.answers("m", {1: ["5"]})
    reference = [{"question_id": 1, "choices": [{"turns": ["the right answer"]}]}]
    bench.write(bench.folder / "reference_answer" / "r.jsonl", reference)
    judge = Judge()
    with server(judge) as url:
        assert bench.judge(monkeypatch, url) == 0
    [row] = read_judgments(bench.single)
    assert row["judge"] == ["j", "single-math-v1"] and "the right answer" in row["user_prompt"]


def test_without_references_the_general_prompt_is_used(bench, monkeypatch):
    bench.questions(1, category="math")
    bench.answers("m", {1: ["5"]})
    with server(Judge()) as url:
        assert bench.judge(monkeypatch, url, "--no-references") == 0
    assert [row["judge"][1] for row in read_judgments(bench.single)] == ["single-v1"]


@pytest.mark.parametrize("name", ["j", "other"])
@pytest.mark.parametrize("category", ["maths", "Code", ""])
def test_references_that_are_not_used_are_said(bench, monkeypatch, capsys, category, name):
    """Their questions are graded without them, for the spelling of a category."""
    bench.questions(3, category=category)
    bench.answers("m", {n: ["5"] for n in (1, 2, 3)})
    turns = {1: ["right"], 2: ["right, too"], 3: ["ERROR"], 4: ["of another question"]}
    rows = [{"question_id": n, "choices": [{"turns": text}]} for n, text in turns.items()]
    bench.write(bench.folder / "reference_answer" / f"{name}.jsonl", rows)
    nowhere = "http://127.0.0.1:9"
    assert bench.judge(monkeypatch, nowhere, "--dry-run") == 0
    said = capsys.readouterr().err
    assert "2 questions have a reference answer and are judged without it (1, 2)" in said
    assert f"({category or 'none'}) is none of math, reasoning, coding" in said
    assert bench.judge(monkeypatch, nowhere, "--dry-run", "--no-references") == 0
    assert capsys.readouterr().err == ""


def test_references_of_some_categories_are_used(bench, monkeypatch, capsys):
    bench.questions(2)
    categories = {1: "math", 2: "maths"}
    rows = [{"question_id": n, "category": categories[n], "turns": ["q"]} for n in (1, 2)]
    bench.write(bench.folder / "question.jsonl", rows)
    bench.answers("m", {1: ["5"], 2: ["6"]})
    rows = [{"question_id": n, "choices": [{"turns": ["right"]}]} for n in (1, 2)]
    references = bench.folder / "right.jsonl"
    bench.write(references, rows)
    given = ["--dry-run", "--reference-file", str(references)]
    assert bench.judge(monkeypatch, "http://127.0.0.1:9", *given) == 0
    assert "1 questions have a reference answer and are judged without" in capsys.readouterr().err


def test_a_reference_file_without_effect_is_refused(bench, monkeypatch, capsys, tmp_path):
    bench.questions(2, category="maths")
    bench.answers("m", {1: ["5"], 2: ["6"]})
    nowhere, file = "http://127.0.0.1:9", tmp_path / "right.jsonl"
    with pytest.raises(UserError, match=r"right\.jsonl"):  # It is not there.
        bench.judge(monkeypatch, nowhere, "--reference-file", str(file))
    bench.write(file, [{"question_id": 1, "choices": [{"turns": ["right"]}]}])
    said = r"--reference-file has no effect: none of the 2 .*\(maths\).*leave the flag out"
    with pytest.raises(UserError, match=said):
        bench.judge(monkeypatch, nowhere, "--reference-file", str(file))
    # A file that nobody asked for, and that is damaged, does not end the command.
    (bench.folder / "reference_answer").mkdir()
    (bench.folder / "reference_answer" / "j.jsonl").write_text("{\n")
    assert bench.judge(monkeypatch, nowhere, "--dry-run") == 0
    assert "j.jsonl" in capsys.readouterr().err


def test_what_is_not_judged_is_said(bench, monkeypatch, capsys):
    """Turns after the second, thoughts, and answers that are empty or thoughts alone."""
    bench.questions(2, turns=3)
    bench.answers("m", {1: ["<think>Hm.</think>\nYes.", "b", "c"], 2: ["<think>Hm.", "", "c"]})
    judge = Judge()
    with server(judge) as url:
        assert bench.judge(monkeypatch, url, "--dry-run") == 0
        said = capsys.readouterr().err
        assert (
            "2 questions have more than two turns (1, 2); only their first turn is judged" in said
        )
        assert "2 of 6 answers of m begin with thoughts" in said and "--strip-thinking" in said
        assert "2 of 6 answers of m are empty, or thoughts without an answer" in said
        assert bench.judge(monkeypatch, url, "--strip-thinking") == 0
    shown = [user for user, _, _ in judge.asked]
    assert not any("Hm." in user for user in shown) and "\nYes.\n" in shown[0]
    assert "--strip-thinking" not in capsys.readouterr().err


def test_an_endpoint_that_is_down_is_given_up_on(bench, monkeypatch):
    bench.questions(30)
    bench.answers("m", {n: [f"answer {n}"] for n in range(1, 31)})
    with server(Judge()) as url:
        pass
    with pytest.raises(UserError, match=r"8 calls in a row failed.*cannot be reached"):
        bench.judge(monkeypatch, url, "--tries", "2")


def test_calls_that_are_refused_do_not_end_the_others(bench, monkeypatch, capsys):
    bench.questions(12)
    bench.answers("m", {n: ["too long" if n <= 10 else "fine"] for n in range(1, 13)})

    def refuses(request):
        request.send(400, b"context of 8192 exceeded", Content_Type="text/plain")

    with server(Judge({"too long": [refuses]})) as url:
        assert bench.judge(monkeypatch, url) == 1
    assert [row["question_id"] for row in read_judgments(bench.single)] == [11, 12]
    assert "failed 10x: Error code: 400, context of 8192 exceeded" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("status", "said"),
    [(404, "does not know the judge 'j'"), (401, "refuses the key"), (403, "refuses the key")],
)
def test_what_no_retry_can_help_stops_at_once(bench, monkeypatch, status, said):
    bench.questions(20)
    bench.answers("m", {n: [f"answer {n}"] for n in range(1, 21)})
    judge = Judge({"answer": [fails(status)]})
    with server(judge) as url, pytest.raises(UserError, match=said):
        bench.judge(monkeypatch, url)
    assert len(judge.asked) <= 2


def test_what_the_user_can_put_right_is_said(bench, monkeypatch, tmp_path):
    def refused(said, *flags, url="http://127.0.0.1:9"):
        with pytest.raises(UserError, match=said) as caught:
            bench.judge(monkeypatch, url, *flags)
        assert "\n" not in str(caught.value)

    refused("no bench 'tiny'.*mt_bench")
    bench.questions(1)
    refused("no answer file; run a gen_model_answer")
    bench.answers("m", {1: ["text"]})
    refused("no answers of 'n'.*answer files there: m", "--model-list", "n")
    refused("no answers of 'gpt-3.5-turbo'", "--mode", "pairwise-baseline")
    refused("needs two models", "--mode", "pairwise-all")
    refused("no judge prompts at", "--judge-file", str(tmp_path / "none.jsonl"))
    refused("expected a number or none", "--temperature", "cold")
    refused("plain name", "--bench-name", "../x")
    refused("--api-base is", "--api-base", "localhost:8000/v1")
    monkeypatch.delenv("OPENAI_API_KEY")
    elsewhere = "http://judge.example/v1"
    refused(f"no key for {elsewhere}: set OPENAI_API_KEY", "--api-base", elsewhere)
    (tmp_path / "file").write_text("")
    refused("cannot be written", "--bench-name", "sample", "--data-dir", str(tmp_path / "file"))
    bench.questions(1, category="math")
    refused("reference answers.*found no file.*--reference-file.*--no-references")
    bench.write(bench.folder / "model_answer" / "m.jsonl", [{"question_id": 1}])
    refused("line 1 is not an answer: no 'choices'")


@pytest.mark.parametrize(
    "flag", ["--parallel", "--first-n", "--tries", "--max-tokens", "--max-completion-tokens"]
)
def test_a_number_below_one_is_refused(flag, bench, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        bench.judge(monkeypatch, "http://127.0.0.1:9", flag, "0")
    assert f"argument {flag}: '0' is not an integer from 1 on" in capsys.readouterr().err
