"""Published question sets: downloaded over real HTTP, checked, kept whole, offline afterwards."""

import hashlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bench.common.errors import UserError
from bench.inputs import published_sets
from bench.inputs.questions import load_questions
from tests.helpers.loopback import server
from tests.helpers.paths import ROOT

OFFICIAL = ROOT.parent / "shared" / "data" / "mt_bench"
ROW = b'{"question_id": 81, "category": "writing", "turns": ["Hello?", "And now?"]}\n'


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache. The digest of mt_bench is that of a file of one line."""
    monkeypatch.setenv(published_sets.CACHE, str(tmp_path / "cache"))
    monkeypatch.setattr(published_sets, "BACKOFF_S", 0.01)
    small = replace(
        published_sets.SETS["mt_bench"][published_sets.QUESTIONS],
        sha256=hashlib.sha256(ROW).hexdigest(),
    )
    monkeypatch.setitem(published_sets.SETS["mt_bench"], published_sets.QUESTIONS, small)
    return tmp_path / "cache"


def kept(cache: Path) -> list[Path]:
    return [path for path in cache.rglob("*") if path.is_file()]


def refusal(monkeypatch, cache, answer) -> str:
    """The message with which fetching from a server that answers so fails; nothing may be kept."""
    with server(answer) as url:
        monkeypatch.setenv(published_sets.MIRROR, url)
        with pytest.raises(UserError) as caught:
            load_questions("mt_bench")
    assert kept(cache) == []
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_set_is_downloaded_once_and_offline_afterwards(cache, monkeypatch):
    asked = []

    def answer(request):
        asked.append(request.path)
        request.send(200, ROW)

    with server(answer) as url:
        monkeypatch.setenv(published_sets.MIRROR, url + "/")
        first = load_questions("mt_bench")
    remote = published_sets.SETS["mt_bench"][published_sets.QUESTIONS]
    assert asked == [f"/{remote.repository}/{remote.commit}/{remote.path}"]
    assert (first.name, [q.question_id for q in first.questions]) == ("mt_bench", [81])
    assert load_questions("mt_bench") == first  # The server is gone.
    assert [path.name for path in kept(cache)] == ["question.jsonl"]


def test_a_damaged_cache_is_not_used(cache, monkeypatch):
    with server(lambda request: request.send(200, ROW)) as url:
        monkeypatch.setenv(published_sets.MIRROR, url)
        path = published_sets.fetched("mt_bench", published_sets.QUESTIONS)
        path.write_bytes(ROW[:-9])
        assert published_sets.fetched("mt_bench", published_sets.QUESTIONS, download=False) is None
        assert published_sets.fetched("mt_bench", published_sets.QUESTIONS).read_bytes() == ROW


def test_a_file_url_is_a_mirror(cache, monkeypatch, tmp_path):
    remote = published_sets.SETS["mt_bench"][published_sets.QUESTIONS]
    there = tmp_path / "a mirror" / remote.repository / remote.commit / remote.path
    there.parent.mkdir(parents=True)
    there.write_bytes(ROW)
    monkeypatch.setenv(published_sets.MIRROR, (tmp_path / "a mirror").as_uri())
    assert len(load_questions("mt_bench").questions) == 1
    monkeypatch.setenv(published_sets.MIRROR, (tmp_path / "nowhere").as_uri())
    (cache / "mt_bench" / "question.jsonl").unlink()
    with pytest.raises(UserError, match="No such file"):
        load_questions("mt_bench")


def test_another_content_is_refused(cache, monkeypatch):
    message = refusal(
        monkeypatch, cache, lambda request: request.send(200, ROW.replace(b"Hello", b"Howdy"))
    )
    assert "not the file that was expected" in message and published_sets.MIRROR in message


def test_a_truncated_download_is_refused(cache, monkeypatch):
    def answer(request):
        request.send(200, ROW[:20], Content_Length=str(len(ROW)))
        request.drop()

    assert "cannot be downloaded" in refusal(monkeypatch, cache, answer)


def test_a_missing_file_is_said(cache, monkeypatch):
    assert "404" in refusal(monkeypatch, cache, lambda request: request.send(404, b"nothing here"))


def test_no_network_is_said(cache, monkeypatch):
    with server(lambda request: None) as url:
        pass
    monkeypatch.setenv(published_sets.MIRROR, url)  # Nobody listens there any more.
    with pytest.raises(UserError, match=r"cannot be downloaded.*refused.*put the file at"):
        load_questions("mt_bench")
    assert kept(cache) == []


def test_a_server_error_is_tried_again(cache, monkeypatch):
    answers = [503, 429]

    def answer(request):
        if answers:
            request.send(answers.pop(), b"later", Retry_After="0")
        else:
            request.send(200, ROW)

    with server(answer) as url:
        monkeypatch.setenv(published_sets.MIRROR, url)
        assert len(load_questions("mt_bench").questions) == 1


def test_a_mirror_that_is_no_url_is_said(cache, monkeypatch):
    monkeypatch.setenv(published_sets.MIRROR, "/some/folder")
    with pytest.raises(UserError, match="file://"):
        load_questions("mt_bench")


def test_every_set_has_what_a_judge_needs():
    """Vicuna's 80 questions have maths and coding, which are judged against references."""
    needed = {published_sets.QUESTIONS, published_sets.REFERENCE, published_sets.PROMPTS}
    for name, files in published_sets.SETS.items():
        assert needed <= files.keys(), name
        assert all(len(each.commit) == 40 and len(each.sha256) == 64 for each in files.values())


def test_an_unknown_set_is_said_with_what_there_is():
    with pytest.raises(UserError, match="did you mean 'mt_bench'"):
        load_questions("mt-bench")


def test_the_pinned_digests_are_those_of_the_official_files(tmp_path, monkeypatch):
    """The command itself, against the official files behind the real paths."""
    official = {
        ("mt_bench", published_sets.QUESTIONS): OFFICIAL / "fastchat" / "question.jsonl",
        ("mt_bench", published_sets.REFERENCE): OFFICIAL
        / "fastchat"
        / "reference_answer"
        / "gpt-4.jsonl",
        ("mt_bench", published_sets.PROMPTS): OFFICIAL / "fastchat" / "judge_prompts.jsonl",
        ("spec_bench", published_sets.QUESTIONS): OFFICIAL / "spec_bench" / "question.jsonl",
    }
    if not OFFICIAL.is_dir():
        pytest.skip(f"the official files are not at {OFFICIAL}")
    by_path = {}
    for (name, file), path in official.items():
        remote = published_sets.SETS[name][file]
        assert len(remote.commit) == 40
        by_path[f"/{remote.repository}/{remote.commit}/{remote.path}"] = path
    monkeypatch.setenv(published_sets.CACHE, str(tmp_path))
    with server(lambda request: request.send(200, by_path[request.path].read_bytes())) as url:
        monkeypatch.setenv(published_sets.MIRROR, url)
        command = [sys.executable, "-m", "bench.fetch", "mt_bench", "spec_bench"]
        said = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.split()
    assert len(said) == 6 and all(Path(each).is_file() for each in said)
    assert len(load_questions("mt_bench").questions) == 80
    assert len(load_questions("spec_bench").questions) == 480
