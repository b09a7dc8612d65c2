"""What every command says to bad input: one line that names what was given, and a status not 0.

docs/bad_inputs.md is the table of it, made from the real messages, and must not differ from them:

    WRITE_DOCS=1 python -m pytest tests/test_bad_inputs.py        after a message was changed
"""

import contextlib
import io
import json
import os
import shutil
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import perplexity
import pytest
import search_tree
import torch

import bench.fetch
import bench.report
import bench.run
import train_heads
from bench.common.errors import exit_cleanly
from decoders.model.heads import MedusaHeads
from llm_judge import gen_judgment, gen_model_answer_medusa, show_result
from tests.helpers.checkpoints import Bomb, write_base, write_medusa1, write_merged
from tests.helpers.models import tiny_heads
from tests.helpers.paths import ROOT

PAGE = ROOT / "docs" / "bad_inputs.md"
COMMANDS: dict[str, Callable[[], int | None]] = {
    "bench.run": bench.run.main,
    "bench.report": bench.report.main,
    "bench.fetch": bench.fetch.main,
    "gen_model_answer_medusa": gen_model_answer_medusa.main,
    "gen_judgment": gen_judgment.command,
    "show_result": show_result.main,
    "train_heads.py": train_heads.main,
    "search_tree.py": search_tree.main,
    "perplexity.py": perplexity.main,
}
GOOD = {"question_id": 1, "category": "math", "turns": ["1 + 1?"]}
ANSWER = {
    "question_id": 1,
    "answer_id": "x",
    "model_id": "m",
    "choices": [{"index": 0, "turns": ["2"]}],
    "tstamp": 0,
}
PROMPT = {
    "name": "single-v1",
    "system_prompt": "",
    "prompt_template": "{answer}",
    "output_format": "[[rating]]",
}
GRADE = {
    "question_id": 1,
    "model": "m",
    "judge": ["j", "p"],
    "judgment": "",
    "score": 7,
    "turn": 1,
}
TINY = "--bench-name tiny --data-dir data"
Content = str | bytes | Callable[[Path], object]


@dataclass(frozen=True)
class Case:
    """A command with bad input, run in a folder that holds what `world` makes."""

    what: str
    command: str  # {} stands for `file`.
    content: Content | None = None  # Of `file`, or a function that makes it. None: no such file.
    file: str = "bad.jsonl"
    status: int = 2
    env: dict[str, str] = field(default_factory=dict)


def rows(*each: object) -> str:
    return "".join(json.dumps(row) + "\n" for row in each)


def question(**changes: object) -> str:
    return rows(GOOD, {**GOOD, "question_id": 2, **changes})


def folder(**files: object) -> Callable[[Path], None]:
    """A function that makes a folder of these files. In their names __ stands for a dot."""

    def make(path: Path) -> None:
        path.mkdir()
        for name, content in files.items():
            (path / name.replace("__", ".")).write_text(
                content if isinstance(content, str) else json.dumps(content)
            )

    return make


def bomb(path: Path) -> None:
    write_medusa1(path, "../plain")
    torch.save({"0.0.linear.weight": Bomb(path / "executed")}, path / "medusa_lm_head.pt")


def base_bomb(path: Path) -> None:
    write_base(path)
    (path / "model.safetensors").unlink()
    torch.save({"lm_head.weight": Bomb(path / "executed")}, path / "pytorch_model.bin")


def other_heads(path: Path) -> None:
    write_medusa1(path, "../plain", vocab=77)


def diverged_heads(path: Path) -> None:
    write_medusa1(path, "../plain")
    tensors = torch.load(path / "medusa_lm_head.pt")
    tensors["1.0.linear.weight"].fill_(torch.nan)
    torch.save(tensors, path / "medusa_lm_head.pt")


def escaping_index(path: Path) -> None:
    shutil.copytree(path.parent / "model", path)
    (path / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"lm_head.weight": "../../secret.safetensors"}})
    )


def strange_vocabulary(path: Path) -> None:
    shutil.copytree(path.parent / "model", path)
    (path / "medusa_vocabulary.json").write_text('{"tokens": [4, 10000000]}')


def many_layers(path: Path) -> None:
    shutil.copytree(path.parent / "plain", path)
    config = json.loads((path / "config.json").read_text()) | {"num_hidden_layers": 3_000_000}
    (path / "config.json").write_text(json.dumps(config))


def packed_heads(path: Path) -> None:
    write_medusa1(path, "../plain")
    with zipfile.ZipFile(path / "medusa_lm_head.pt", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("archive/data.pkl", bytes(1_000_000))


def linked_run(path: Path) -> None:
    shutil.copytree(path.parent / "run", path)
    (path / "turns.jsonl").replace(path.parent / "of-someone-else.jsonl")
    (path / "turns.jsonl").symlink_to(path.parent / "of-someone-else.jsonl")


def own_code(path: Path) -> None:
    shutil.copytree(path.parent / "plain", path)
    config = json.loads((path / "config.json").read_text()) | {
        "model_type": "mine",
        "auto_map": {"AutoConfig": "mine.Config", "AutoModelForCausalLM": "mine.Model"},
    }
    (path / "config.json").write_text(json.dumps(config))
    (path / "mine.py").write_text("from pathlib import Path\nPath('executed').touch()\n")


def changed(file: str, **changes: object) -> Callable[[Path], None]:
    """Makes a copy of the finished run with changes in run.json or the first row of turns.jsonl."""

    def make(path: Path) -> None:
        # Answer files would be shown instead.
        shutil.copytree(path.parent / "run", path, ignore=shutil.ignore_patterns("answers"))
        content = (path / file).read_text()
        first, *others = content.split("\n") if file == "turns.jsonl" else [content]
        (path / file).write_text("\n".join([json.dumps(json.loads(first) | changes), *others]))

    return make


RUN = "bench.run --model model --device cpu --out out"
ASK = f"{RUN} --questions {{}}"
LOAD = "bench.run --device cpu --out out --model {}"
STATIC = f"{RUN} --decoder static --tree {{}}"
MEDUSA = f"gen_model_answer_medusa --model-path model {TINY}"
ANSWERS = "data/tiny/model_answer/m.jsonl"
ONLY_STATIC = {"decoders": ["static"], "num_choices": 1}
JUDGE = f"gen_judgment {TINY} --api-base http://localhost:9/v1"
CASES = [
    Case("questions that are not there", f"{RUN} --questions mt_bnch"),
    Case("a folder for a question file", f"{RUN} --questions model"),
    Case("a named pipe for a question file", ASK, os.mkfifo),
    Case("an empty question file", ASK, ""),
    Case("a line that is no JSON", ASK, rows(GOOD) + "question 2\n"),
    Case("a line that is no object", ASK, rows(GOOD, [2])),
    Case("a line that is not UTF-8", ASK, rows(GOOD).encode() + b'{"question_id": "\xff"}\n'),
    Case("a line nested 100,000 deep", ASK, rows(GOOD) + "[" * 100_000 + "\n"),
    Case("a line of 17 MiB", ASK, rows(GOOD) + "x" * (17 << 20)),
    Case("NaN for a number", ASK, question(question_id=float("nan"))),
    Case("a number too large for any", ASK, rows(GOOD) + '{"question_id": 1e999}\n'),
    Case("half of a surrogate pair", ASK, question(turns=["\ud800"])),
    Case("a question_id of 100 digits", ASK, question(question_id=10**99)),
    Case("a question_id that is a path", ASK, question(question_id="../../etc")),
    Case("a question_id that stands twice", ASK, question(question_id=1)),
    Case("a category that is no text", ASK, question(category=7)),
    Case("no turns", ASK, question(turns=[])),
    Case("a turn that is no text", ASK, question(turns=["a", 7])),
    Case("more questions skipped than there are", f"{RUN} --questions q.jsonl --skip 5"),
    Case("an unknown decoder", f"{RUN} --decoder dinamic"),
    Case("what others call a decoder", f"{RUN} --decoder medusa"),
    Case("a label that is another decoder's name", f"{RUN} --decoder greedy=dynamic"),
    Case("an unknown option of a decoder", f"{RUN} --decoder dynamic:node=8"),
    Case("a draft vocabulary that is not there", f"{RUN} --decoder dynamic:vocab=frequent"),
    Case("an option that is no number", f"{RUN} --decoder dynamic:topk=many"),
    Case("no model for a decoder that drafts with one", f"{RUN} --decoder draft"),
    Case(
        "a draft model of another vocabulary",
        f"{RUN} --decoder draft:model={{}}",
        lambda path: write_base(path, vocab_size=99),
        "bad",
    ),
    Case("a tree without nodes", f"{RUN} --nodes 0"),
    Case("more nodes than can be verified", f"{RUN} --nodes 99999999999999999999"),
    Case("a temperature that is no number", f"{RUN} --temperature nan"),
    Case("a temperature below 0", f"{RUN} --temperature -1"),
    Case("a nucleus of more than everything", f"{RUN} --top-p 1.5"),
    Case("no new tokens", f"{RUN} --max-new-tokens 0"),
    Case("a negative limit", f"{RUN} --limit -1"),
    Case("a limit that is no number", f"{RUN} --limit many"),
    Case("an unknown template", f"{RUN} --template vicuna_v1"),
    Case("an unknown device", f"{RUN} --device gpu"),
    Case("a tree that is not there", f"{RUN} --decoder static --tree mc_sim"),
    Case("a tree without a parent", STATIC, "[[0], [1, 0]]", "tree.json"),
    Case("a tree nested 100,000 deep", STATIC, "[" * 100_000, "tree.json"),
    Case("a tree of a million nodes", STATIC, "[1000000]", "tree.json"),
    Case("a tree of 17 MiB", STATIC, " " * (17 << 20), "tree.json"),
    Case("a model that is not there", "bench.run --model ./none"),
    Case("a file for a model", "bench.run --model q.jsonl"),
    Case("a model without config.json", "bench.run --model data"),
    Case("a config.json that is no JSON", "bench.run --model {}", folder(config__json="{"), "bad"),
    Case("a config.json that is a list", "bench.run --model {}", folder(config__json=[]), "bad"),
    Case(
        "a model without weights",
        "bench.run --model {}",
        folder(config__json={"model_type": "llama"}),
        "bad",
    ),
    Case(
        "heads whose base is not there",
        "bench.run --model {}",
        folder(config__json={"base_model_name_or_path": "../none"}),
        "bad",
    ),
    Case("heads that are code (a pickle)", LOAD, bomb, "bad"),
    Case(
        "a model that is code (a pickle)",
        "bench.run --decoder greedy --device cpu --out out --model {}",
        base_bomb,
        "bad",
    ),
    Case("heads of another model", LOAD, other_heads, "bad"),
    Case("heads of a training that diverged", LOAD, diverged_heads, "bad"),
    Case(
        "heads that name no base model",
        "bench.run --model {}",
        folder(config__json={"model_type": "medusa"}),
        "bad",
    ),
    Case(
        "an adapter",
        "bench.run --model {}",
        folder(config__json={"model_type": "llama"}, adapter_config__json={"peft_type": "LORA"}),
        "bad",
    ),
    Case(
        "a draft vocabulary of another model",
        f"{LOAD} --decoder dynamic:vocab=frequent",
        strange_vocabulary,
        "bad",
    ),
    Case("weights outside the model's folder", LOAD, escaping_index, "bad"),
    Case("a model with Python code of its own", LOAD, own_code, "bad"),
    Case("a model of three million layers", LOAD, many_layers, "bad"),
    Case("heads in a file that was compressed", LOAD, packed_heads, "bad"),
    Case(
        "no heads for a decoder that needs them",
        "bench.run --model plain --questions q.jsonl --device cpu --out out",
    ),
    Case("a file for --out", "bench.run --out q.jsonl"),
    Case("a folder of something else for --out", "bench.run --out model"),
    Case("a folder that cannot be made", "bench.run --out /proc/none"),
    Case(
        "a run of another configuration",
        "bench.run --model model --questions q.jsonl --device cpu --out run --seed 1",
    ),
    Case(
        "a run's folder with a symbolic link",
        "bench.run --model model --questions q.jsonl --device cpu --max-new-tokens 4 --out {}",
        linked_run,
        "bad",
    ),
    Case(
        "a turn that does not fit into the context",
        f"{RUN} --questions {{}} --decoder greedy",
        question(turns=["x" * 900]),
        status=1,
    ),
    Case("a report of no folder", "bench.report none"),
    Case("a report of a folder without a run", "bench.report model"),
    Case("a run.json that is no JSON", "bench.report {}", folder(run__json="{"), "bad"),
    Case(
        "a run.json of another version",
        "bench.report {}",
        changed("run.json", schema_version=99),
        "bad",
    ),
    Case(
        "a run.json without its configuration",
        "bench.report {}",
        changed("run.json", config=None),
        "bad",
    ),
    Case(
        "a row that is no turn", "bench.report {}", changed("turns.jsonl", token_ids="many"), "bad"
    ),
    Case(
        "a turn whose numbers contradict each other",
        "bench.report {}",
        changed("turns.jsonl", accept_lengths=[5]),
        "bad",
    ),
    Case(
        "a turn of a question that was not asked",
        "bench.report {}",
        changed("turns.jsonl", question_id=777),
        "bad",
    ),
    Case(
        "turns of another run's decoders",
        "bench.report {}",
        changed("run.json", config=ONLY_STATIC),
        "bad",
    ),
    Case("an unknown question set", "bench.fetch mt_bnch"),
    Case("a mirror that is no URL", "bench.fetch mt_bench", env={"MEDUSA_BENCH_MIRROR": "mirror"}),
    Case("a flag that has no effect", f"{MEDUSA} --fast"),
    Case("a question range that is none", f"{MEDUSA} --question-begin -1"),
    Case(
        "an answer file of another model",
        f"{MEDUSA} --model-id mine --answer-file {{}}",
        rows(ANSWER),
    ),
    Case("a bench name that is a path", "gen_judgment --bench-name ../tiny --data-dir data"),
    Case("a bench that is not there", "gen_judgment --bench-name none --data-dir data"),
    Case("no model of that name", f"{JUDGE} --model-list ../../m"),
    Case("answers that are no texts", JUDGE, rows(ANSWER | {"choices": [{"turns": [1]}]}), ANSWERS),
    Case("no calls at once", f"{JUDGE} --parallel 0"),
    Case("an endpoint that is no URL", f"gen_judgment {TINY} --api-base localhost"),
    Case("no key for an endpoint", f"gen_judgment {TINY}", env={"OPENAI_API_KEY": ""}),
    Case(
        "judge prompts that look into objects",
        f"{JUDGE} --judge-file {{}}",
        rows(PROMPT | {"prompt_template": "{answer.__class__}"}),
    ),
    Case("no judgments", f"show_result {TINY}"),
    Case(
        "a grade that is no number",
        f"show_result {TINY} --input-file {{}}",
        rows(GRADE | {"score": "7"}),
    ),
    Case(
        "judgments by several judges",
        f"show_result {TINY} --input-file {{}}",
        rows(GRADE, GRADE | {"judge": ["k", "p"]}),
    ),
    Case(
        "a corpus that is not there", "train_heads.py --model plain --corpus none.jsonl --out out"
    ),
    Case(
        "a corpus line that is no chat",
        "train_heads.py --model plain --device cpu --corpus {} --out out",
        rows({"turns": [{"role": "system", "content": "x"}]}),
    ),
    Case(
        "a corpus that is no gzip file",
        "perplexity.py --model plain --device cpu --corpus {}",
        "text",
        "corpus.jsonl.gz",
    ),
    Case(
        "no heads to measure",
        "search_tree.py --model plain --device cpu --corpus q.jsonl --out out",
    ),
]


HEAD = [
    "# Bad input, and what it gets",
    "",
    "Made from the real messages by `tests/test_bad_inputs.py`, which fails where this page",
    "differs from them. A command ends with status 2 where it refuses its input, and with 1",
    "where some of its work failed.",
    "",
    "| given | command | status | message |",
    "| --- | --- | ---: | --- |",
]


@pytest.fixture(scope="module", autouse=True)
def world(tmp_path_factory) -> Path:
    """What commands need: models with heads and without, questions, a finished run, a bench."""
    path = tmp_path_factory.mktemp("world")
    write_merged(path / "model")
    write_base(path / "plain")
    (path / "q.jsonl").write_text(rows(GOOD))
    (path / "data" / "tiny" / "model_answer").mkdir(parents=True)
    (path / "data" / "tiny" / "question.jsonl").write_text(rows(GOOD | {"category": "writing"}))
    (path / "data" / "tiny" / "model_answer" / "m.jsonl").write_text(rows(ANSWER))
    run = "bench.run --model model --questions q.jsonl --device cpu --max-new-tokens 4 --out run"
    assert said(Case("", run), path, {})[0] == 0
    outcome.world = path
    return path


def said(case: Case, where: Path, env: dict[str, str]) -> tuple[int, str]:
    """The status of a command in a folder, and what it wrote to stderr. A bug is raised."""
    name, *arguments = case.command.format(case.file).split()
    err = io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stderr(err),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        patch.chdir(where)
        patch.delenv("OPENAI_BASE_URL", raising=False)
        for key, value in ({"OPENAI_API_KEY": "key"} | env).items():
            patch.setenv(key, value)
        patch.setattr(sys, "argv", [name, *arguments])
        with pytest.raises(SystemExit) as ended:
            exit_cleanly(COMMANDS[name])
    return ended.value.code, err.getvalue()


@cache
def outcome(number: int) -> tuple[int, str]:
    """The status and the last line of a case, which has a copy of the world to itself."""
    case = CASES[number]
    where = outcome.world.with_name(f"case-{number}")
    shutil.copytree(outcome.world, where)
    if callable(case.content):
        case.content(where / case.file)
    elif case.content is not None:
        (where / case.file).write_bytes(
            case.content.encode() if isinstance(case.content, str) else case.content
        )
    status, text = said(case, where, case.env)
    assert not list(where.rglob("executed")), "code was executed"
    return status, text.strip().split("\n")[-1]


def row_of(number: int) -> str:
    """A case as a row of the page."""
    case, (status, line) = CASES[number], outcome(number)
    env = "".join(f"{key}={value} " for key, value in case.env.items())
    command = (env + case.command.format(case.file)).replace("|", "\\|")
    row = f"| {case.what} | `{command}` | {status} | `{line.replace('|', chr(92) + '|')}` |"
    assert str(outcome.world) not in row
    return row


@pytest.mark.parametrize(
    "number", range(len(CASES)), ids=[case.what.replace(" ", "-") for case in CASES]
)
def test_one_line_says_what_is_wrong(number):
    status, line = outcome(number)
    assert status == CASES[number].status
    assert "error: " in line and len(line) < 500
    if not os.environ.get("WRITE_DOCS"):
        assert PAGE.read_text().split("\n")[len(HEAD) + number] == row_of(number)


def test_the_page_has_a_row_for_every_case():
    if os.environ.get("WRITE_DOCS"):
        PAGE.write_text("\n".join([*HEAD, *map(row_of, range(len(CASES)))]) + "\n")
    lines = PAGE.read_text().split("\n")
    assert lines[: len(HEAD)] == HEAD and len(lines) == len(HEAD) + len(CASES) + 1
    assert len(CASES) >= 40


def test_a_number_of_5000_digits(world):
    """Python refuses to read it, in words of its own."""
    (world / "huge.jsonl").write_text('{"question_id": 1' + "0" * 5000 + "}\n")
    status, text = said(Case("", f"{RUN} --questions huge.jsonl"), world, {})
    assert (
        status == 2 and "huge.jsonl, line 1" in text and text.count("\n") == 1 and len(text) < 300
    )


def test_heads_without_end_are_not_allocated():
    """Tensors' names decide how many heads there are. A name alone must not take a terabyte."""
    tensors = tiny_heads(1).published() | {"99999999.0.linear.weight": torch.zeros(32, 32)}
    with pytest.raises(ValueError, match="cannot make"):
        MedusaHeads.from_published(tensors, 32, 101)
