"""Several models answering at once, with a real Ray."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from bench.common.errors import UserError
from bench.running.config import RunConfig
from bench.running.decoders import make_decoders
from bench.running.digests import digests_of
from bench.running.environment import git_state
from bench.store.turn import read_turns
from tests.helpers.checkpoints import write_merged
from tests.helpers.commands import bench
from tests.helpers.paths import ROOT
from tests.helpers.plugins import install

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'medusa-bench[ray]'")
Workers = pytest.importorskip("bench.running.workers").Workers

# A decoder whose process dies at prompts with an x: always, or with `once` (a file that it makes
# then) only the first time.
KILLER = """
import os, signal
from dataclasses import dataclass
from decoders.greedy import Greedy

@dataclass
class Killer(Greedy):
    once: str = ""

    def decode(self, prompt, rule, stop, **more):
        if 91 in prompt.tolist() and not (self.once and os.path.exists(self.once)):
            if self.once:
                open(self.once, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().decode(prompt, rule, stop, **more)
"""


@pytest.fixture
def killer(tmp_path, monkeypatch):
    install(tmp_path, "killers", KILLER, {"killer": "Killer"})
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(tmp_path), str(ROOT))))  # The workers'.
    yield
    sys.modules.pop("killers", None)


@pytest.fixture(scope="module")
def basics(tmp_path_factory) -> list[object]:
    folder = tmp_path_factory.mktemp("workers")
    model = write_merged(folder / "tiny")
    rows = [
        {"question_id": n, "category": "writing", "turns": ["x?" if n == 2 else f"{n}?", "And?"]}
        for n in range(1, 5)
    ]
    (folder / "four.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    which = ["--model", model, "--questions", folder / "four.jsonl"]
    return [*which, "--max-new-tokens", 24, "--device", "cpu"]


def rows(out) -> dict:
    """What does not depend on times, by turn."""
    turns, _ = read_turns(out / "turns.jsonl")
    return {
        turn.key: (turn.token_ids, turn.accept_lengths, turn.seed, turn.text, turn.finish_reason)
        for turn in turns
    }


def answers(out, name) -> list[dict]:
    """The rows of an answer file, without what depends on times."""
    lines = [json.loads(line) for line in (out / "answers" / name).read_text().splitlines()]
    for line in lines:
        del line["answer_id"], line["tstamp"]
        for choice in line["choices"]:
            del choice["wall_time"]
    return lines


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a Ray cluster of this machine alone, which one run after the other joins."""
    cluster_utils = pytest.importorskip("ray.cluster_utils")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))  # The workers'.
        head = {"num_cpus": 4, "object_store_memory": 1 << 27}
        made = cluster_utils.Cluster(initialize_head=True, head_node_args=head)
    yield made.address
    made.shutdown()


def test_four_workers_of_a_cluster_give_the_answers_of_one_process(basics, cluster, tmp_path):
    one, four = tmp_path / "one", tmp_path / "four"
    arguments = [*basics, "--decoder", "greedy,dynamic:nodes=8,conditional:nodes=8"]
    assert bench(*arguments, "--out", one) == 0
    assert bench(*arguments, "--out", four, "--workers", 4, "--ray-address", cluster) == 0
    assert rows(four) == rows(one) and len(rows(one)) == 24
    for name in sorted(path.name for path in (one / "answers").iterdir()):
        assert answers(four, name) == answers(one, name)
    run = json.loads((four / "run.json").read_text())
    assert run["environment"]["workers"] == len(run["sessions"][0]["workers"]) == 4


def test_workers_that_choose_their_nodes_by_their_own_measurements_answer_as_greedy(
    basics, cluster, tmp_path
):
    """Their trees depend on the times that each of them measured. Their answers do not."""
    out = tmp_path / "run"
    model = write_merged(tmp_path / "longer", max_position_embeddings=1024)  # Room to measure in.
    decoders = "greedy,dynamic:nodes=auto,conditional:nodes=auto"
    given = [*basics, "--model", model, "--decoder", decoders, "--temperature", 0, "--out", out]
    assert bench(*given, "--workers", 4, "--ray-address", cluster) == 0
    turns, _ = read_turns(out / "turns.jsonl")
    said = {turn.key: (turn.token_ids, turn.text, turn.finish_reason) for turn in turns}
    assert len(said) == 24
    for (question_id, spec, *rest), answer in said.items():
        assert answer == said[(question_id, "greedy", *rest)], spec
    run = json.loads((out / "run.json").read_text())
    times = [each["step_times"]["seconds"] for each in run["sessions"][0]["workers"]]
    assert len(times) == 4 and times[0] != times[1] and run["step_times"] is None


@pytest.mark.parametrize("changed", ["trees", "files", "commit"])
def test_workers_with_other_files_or_code_are_refused(basics, cluster, monkeypatch, changed):
    """Their rows stood under one label with those of other trees."""
    config = RunConfig(decoders=("greedy",), model=str(basics[1]), device="cpu")
    digests = digests_of(make_decoders(config))
    if changed == "commit":
        git = {"commit": "of another checkout", "dirty": False}
        monkeypatch.setattr("bench.running.workers.git_state", lambda: git)
        if git_state()["commit"] is None:
            pytest.skip("this is no checkout")
    else:
        digests[changed] = {"greedy": "of another file"}
    with pytest.raises(UserError, match=rf"decoders use \({changed}\); make them the same"):
        Workers(config, 1, cluster, digests)


@pytest.fixture
def two() -> tuple[Workers, dict]:
    """Two workers without processes, and the facts of each."""
    workers = Workers.__new__(Workers)
    workers.config, workers._code, workers._threads = RunConfig(), {"trees": {}}, None
    facts = {"model": {"name": "demo", "identity": "a"}, "code": {"trees": {}}}
    facts |= {"environment": {}, "warnings": []}
    workers.workers, workers._facts = [None, None], [facts, facts]
    return workers, facts


def test_workers_with_other_models_are_refused(two):
    workers, facts = two
    workers._check()
    workers._facts[1] = facts | {"model": {"name": "demo", "identity": "b"}}
    with pytest.raises(UserError, match="different files for model 'demo'"):
        workers._check()


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"model": {"name": "demo", "identity": "b"}}, "model 'demo' has changed since the run"),
        ({"code": {"trees": {"static": "b"}}}, r"what decoders use \(trees\)"),
    ],
)
def test_a_worker_that_takes_a_dead_ones_place_must_be_its_like(two, changed, says):
    """Its rows stood in one run with those of another model, or of other code."""
    workers, facts = two
    workers._check_replacement(facts)
    with pytest.raises(UserError, match=says):
        workers._check_replacement(facts | changed)


def test_a_worker_killed_in_a_question_costs_only_time(basics, killer, tmp_path, capsys):
    """With samples and two choices, each turn is as from one process, after a death, too."""
    mark = tmp_path / "died"
    arguments = [*basics, "--num-choices", 2, "--decoder", f"dynamic:nodes=8,killer:once={mark}"]
    mark.touch()
    assert bench(*arguments, "--out", tmp_path / "one") == 0
    mark.unlink()
    assert bench(*arguments, "--out", tmp_path / "two", "--workers", 2) == 0
    assert mark.exists() and not ray.is_initialized()
    said = capsys.readouterr().err
    assert "a worker died (ActorDiedError) at question 2, killer" in said
    assert "2 workers share the cores" in said
    assert rows(tmp_path / "two") == rows(tmp_path / "one") and len(rows(tmp_path / "one")) == 32
    for name in sorted(path.name for path in (tmp_path / "one" / "answers").iterdir()):
        assert answers(tmp_path / "two", name) == answers(tmp_path / "one", name)
    run = json.loads((tmp_path / "two" / "run.json").read_text())
    assert run["environment"]["workers"] == 2
    assert [each["threads"] for each in run["sessions"][0]["workers"]] == [1, 1]
    assert "slow each other down" in run["sessions"][0]["warnings"][0]


def test_a_job_that_kills_every_worker_is_a_failure_of_its_turn(basics, killer, tmp_path):
    """The rest of the run is done."""
    arguments = [*basics, "--decoder", "killer", "--out", tmp_path / "run", "--workers", 2]
    assert bench(*arguments) == 1
    turns, _ = read_turns(tmp_path / "run" / "turns.jsonl")
    failed = [turn for turn in turns if turn.failed]
    assert [(turn.question_id, turn.turn) for turn in failed] == [(2, 1)] and len(turns) == 7
    assert "3 workers died in this turn" in failed[0].error


def test_what_cannot_run_says_so_at_once(basics, tmp_path, monkeypatch, capsys):
    def refused(*arguments: object) -> str:
        assert bench(*basics, "--out", tmp_path / "run", *arguments) == 2
        return capsys.readouterr().err

    assert "--workers is 0" in refused("--workers", 0)
    nowhere = "127.0.0.1:1"
    said = refused("--workers", 2, "--ray-address", nowhere)
    assert f"the cluster at '{nowhere}' cannot be joined" in said
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "bench.running.workers", raising=False)
    assert "pip install 'medusa-bench[ray]'" in refused("--workers", 2)


def test_ctrl_c_stops_the_workers(basics, tmp_path):
    out = tmp_path / "run"
    turns = out / "turns.jsonl"
    given = [*basics, "--out", out, "--workers", 2, "--num-choices", 200]
    command = [sys.executable, "-m", "bench.run", *map(str, given)]
    process = subprocess.Popen(
        command, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    while process.poll() is None and not (turns.exists() and turns.stat().st_size):
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # A terminal signals every process in front.
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130 and "Traceback" not in said
    assert "To go on: python -m bench.run" in said
    for turn in read_turns(turns)[0]:
        assert sum(turn.accept_lengths) == len(turn.token_ids)
    until = time.monotonic() + 30
    with pytest.raises(ProcessLookupError):  # Ray's processes belong to the same group.
        while time.monotonic() < until:
            os.killpg(process.pid, 0)
            time.sleep(0.05)
