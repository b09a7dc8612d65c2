"""What the three gen_model_answer commands share: upstream's flags in front of `bench.running.runner`.

Every flag has an effect or is refused. A flag of upstream's that cannot matter in a configuration (a posterior threshold at
temperature 0, a static tree for the dynamic decoder) may be given with upstream's own default value, and with no other.
"""

import argparse
import shlex
import sys
from dataclasses import fields
from hashlib import sha256
from pathlib import Path

from bench.common.arguments import whole
from bench.common.errors import UserError, exit_cleanly
from bench.common.files import json_line, read_rows, safe_name, shown, sole_writer, write_atomically
from bench.common.signals import Stopped
from bench.fetch import SETS
from bench.inputs.loader import DEMO, DTYPES, identity_of
from bench.inputs.questions import SAMPLE, question_file
from bench.running.config import RunConfig
from bench.running.runner import run
from bench.store.records import read_run, read_turns
from llm_judge.judge_folder import Bench, add_data_flags

UPSTREAM = {"medusa_choices": "mc_sim_7b_63", "sampling": "typical", "posterior_threshold": 0.09, "posterior_alpha": 0.3,
            "top_p": 0.8, "fast": False}  # fmt: skip
# Of these the name of a model says nothing: they are said otherwise, or do not change what is computed.
_NOT_IN_NAME = {"decoders", "model", "questions", "limit", "skip", "temperature", "max_new_tokens", "acceptance", "tree",
                "posterior_threshold", "posterior_alpha", "top_p"}  # fmt: skip


def parser(decoder: str, doc: str) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = made.add_argument
    add("--model-path", required=True, help="demo, a folder, or a hub id")
    add(
        "--model-id",
        help="how the model is called; what else differs is appended (default: the path's last part, and of a "
        "folder the first digits of a digest of its files)",
    )
    add_data_flags(made)
    add("--question-begin", type=int, help="index of the first question (default: 0)")
    add("--question-end", type=int, help="index behind the last question (default: all)")
    add("--answer-file", type=Path, help="default: <data>/<bench>/model_answer/<model id>.jsonl")
    add(
        "--max-new-token", type=whole(1), default=1024, help="tokens a turn at most (default: 1024)"
    )
    add("--num-choices", type=int, default=1, help="answers to each question (default: 1)")
    add(
        "--num-gpus-per-model",
        type=int,
        default=1,
        help="several: one model spread over so many GPUs (default: 1)",
    )
    add(
        "--num-gpus-total",
        type=int,
        help="as many models as fit on them answer at once, through Ray (default: one model)",
    )
    add(
        "--max-gpu-memory",
        help="of each GPU, for weights, such as 20GiB; with several GPUs per model",
    )
    add(
        "--temperature",
        default="0.0",
        help="a number, or auto: MT-Bench's by category (default: 0.0)",
    )
    add("--posterior-threshold", type=float, help="epsilon of typical acceptance (default: 0.09)")
    add("--posterior-alpha", type=float, help="alpha of typical acceptance (default: 0.3)")
    add("--top-p", type=float, help="with --sampling nucleus: its mass (default: 0.8)")
    add(
        "--sampling",
        choices=("typical", "nucleus"),
        help="above temperature 0: which part of the distribution counts",
    )
    add(
        "--fast",
        action="store_true",
        default=None,
        help="typical by MEDUSA's threshold rule instead of by samples",
    )
    add(
        "--medusa-choices",
        help="static tree: a published name, a JSON file, or own (default: mc_sim_7b_63)",
    )
    if decoder == "dynamic":
        add("--nodes", type=int, help="nodes of the tree, root included (default: 64)")
        add("--topk", type=int, help="guesses taken from each head (default: 32)")
        add("--depth", type=int, help="levels of the tree below the root (default: all heads)")
    add(
        "--template",
        help="a FastChat conversation name such as vicuna_v1.1, or chat: the tokenizer's own (default)",
    )
    add("--seed", type=int, default=0, help="of all samples (default: 0)")
    add("--device", default="auto", help="auto (default), cpu, cuda, cuda:N, mps")
    add("--dtype", default="auto", choices=DTYPES)
    for bits in (8, 4):
        add(
            f"--load-in-{bits}bit",
            action="store_true",
            help=f"quantise to {bits} bits (CUDA, bitsandbytes)",
        )
    add(
        "--trust-remote-code",
        action="store_true",
        help="execute Python files that the model brings along",
    )
    add(
        "--compile",
        action="store_true",
        help="fuse the model's small operations; pays in long GPU runs only",
    )
    add(
        "--out",
        type=Path,
        help="folder of the run, which an interrupted one is resumed from (default: beside model_answer)",
    )
    return made


def run_config(decoder: str, args: argparse.Namespace, questions: str) -> RunConfig:
    """The run that the flags ask for; UserError for a flag that has no effect on it."""
    temperature = _temperature(args.temperature)
    given = {
        name: getattr(args, name)
        for name in UPSTREAM
        if getattr(args, name) not in (None, UPSTREAM[name])
    }
    value = {
        name: UPSTREAM[name] if getattr(args, name) is None else getattr(args, name)
        for name in UPSTREAM
    }
    if decoder != "static":
        _refuse(given, ["medusa_choices"], "the tree of a static decoder; this one has none")
    acceptance, top_p, posterior = "lossless", 1.0, {}
    rules = ["sampling", "fast", "posterior_threshold", "posterior_alpha", "top_p"]
    if decoder == "greedy":
        _refuse(given, rules, "the acceptance of drafted tokens; the baseline drafts none")
    elif temperature == 0:
        _refuse(
            given, rules, "sampling; at temperature 0 tokens are accepted when they are greedy's"
        )
    elif value["sampling"] == "nucleus":
        _refuse(
            given,
            ["fast", "posterior_threshold", "posterior_alpha"],
            "typical acceptance, not --sampling nucleus",
        )
        top_p = value["top_p"]
    else:
        _refuse(given, ["top_p"], "--sampling nucleus, not typical acceptance")
        acceptance = "typical" if value["fast"] else "typical-sampled"
        posterior = {name: value[name] for name in ("posterior_threshold", "posterior_alpha")}
    tree = {}
    if decoder == "static":
        choices = Path(value["medusa_choices"])
        tree = {"tree": str(choices.resolve()) if choices.is_file() else value["medusa_choices"]}
    if decoder == "dynamic":
        tree = {name: getattr(args, name) for name in ("nodes", "topk", "depth")}
    config = RunConfig(
        decoders=(decoder,),
        model=str(Path(args.model_path).resolve())
        if Path(args.model_path).is_dir()
        else args.model_path,
        questions=questions,
        template=args.template,
        temperature=temperature,
        acceptance=acceptance,
        top_p=top_p,
        **posterior,
        **tree,
        max_new_tokens=args.max_new_token,
        num_choices=args.num_choices,
        seed=args.seed,
        dtype=args.dtype,
        load_in_8bit=args.load_in_8bit,
        load_in_4bit=args.load_in_4bit,
        trust_remote_code=args.trust_remote_code,
        compile=args.compile,
        **_range(args.question_begin, args.question_end),
        **_devices(args),
    )
    config.check()
    return config


def _temperature(given: str) -> float | None:
    if given == "auto":
        return None
    try:
        return float(given)
    except ValueError:
        raise UserError(f"--temperature is {given!r}; expected a number >= 0 or auto") from None


def _refuse(given: dict, names: list[str], what: str) -> None:
    for name in names:
        if name in given:
            raise UserError(f"--{name.replace('_', '-')} is about {what}; leave it out")


def _range(begin: int | None, end: int | None) -> dict[str, int | None]:
    for name, index in (("begin", begin), ("end", end)):
        if index is not None and index < 0:
            raise UserError(f"--question-{name} is {index}; expected an index >= 0")
    skip = begin or 0
    if end is not None and end <= skip:
        raise UserError(f"--question-end is {end}; expected more than --question-begin, {skip}")
    return {"skip": skip, "limit": None if end is None else end - skip}


def _devices(args: argparse.Namespace) -> dict[str, object]:
    each, total = args.num_gpus_per_model, args.num_gpus_total
    if each < 1:
        raise UserError(f"--num-gpus-per-model is {each}; expected at least 1")
    if total is not None and total < each:
        raise UserError(
            f"--num-gpus-total is {total}, fewer than the {each} of --num-gpus-per-model"
        )
    if each > 1:
        if args.device != "auto":
            raise UserError(
                f"--device {args.device} and --num-gpus-per-model {each} exclude each other"
            )
        return {"device": "balanced", "gpus": each, "max_gpu_memory": args.max_gpu_memory}
    if args.max_gpu_memory is not None:
        raise UserError(
            "--max-gpu-memory has no effect on a model on one device; it needs --num-gpus-per-model of 2 or more"
        )
    return {"device": args.device}


def model_id(label: str, config: RunConfig) -> str:
    """The name of the answers: whatever changes them, or how fast they come, is in it.

    >>> model_id("vicuna-7b", RunConfig(decoders=("dynamic",), temperature=0.0, nodes=32))
    'vicuna-7b-dynamic-temperature-0.0-max_new_tokens-1024-nodes-32'
    """
    parts = [label, config.decoders[0]]
    if config.tree is not None:
        parts.append(_tree_name(config.tree))
    parts.append(f"temperature-{'auto' if config.temperature is None else config.temperature}")
    if config.acceptance != "lossless":
        posterior = f"posterior_threshold-{config.posterior_threshold}-posterior_alpha-{config.posterior_alpha}"
        parts += [config.acceptance, posterior]
    if config.top_p != 1:
        parts.append(f"nucleus-{config.top_p}")
    parts.append(f"max_new_tokens-{config.max_new_tokens}")
    for field in fields(config):
        value = getattr(config, field.name)
        if field.name not in _NOT_IN_NAME and value != field.default:
            parts.append(field.name if value is True else f"{field.name}-{value}")
    return safe_name("-".join(parts))


def _label(model: str) -> str:
    """The model's own part of the name."""
    path = Path(model)
    if (
        path.is_dir() and model != DEMO
    ):  # two folders may have one name, and one may be trained again
        return f"{path.resolve().name}-{identity_of(model)[:8]}"
    return path.name


def _tree_name(tree: str) -> str:
    path = Path(tree)
    if path.is_file():  # two files may have one name
        return f"{path.stem}-{sha256(path.read_bytes()).hexdigest()[:8]}"
    return tree


def merge_answers(path: Path, rows: list[dict], name: str) -> None:
    """Put the rows of model `name` into an answer file, by question_id; those of the same questions are replaced.

    UserError where the file holds another model's answers.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with sole_writer(
        path, wait_s=60
    ):  # commands for other ranges of questions may be at their end, too
        merged: dict[int, dict] = {}
        for number, row in read_rows(path) if path.exists() else ():
            where = f"{path}, line {number}"
            if row.get("model_id") != name:
                raise UserError(
                    f"{where} is an answer of {shown(row.get('model_id'))}, not {name!r}; give another --answer-file"
                )
            if type(row.get("question_id")) is not int:
                raise UserError(
                    f"{where} is not an answer: question_id is {shown(row.get('question_id'))}"
                )
            merged[row["question_id"]] = row
        merged |= {row["question_id"]: row for row in rows}
        if merged:
            write_atomically(path, "".join(json_line(merged[key]) for key in sorted(merged)))


def answer(decoder: str, doc: str, module: str) -> int:
    args = parser(decoder, doc).parse_args()
    bench = Bench.of(args.bench_name, args.data_dir)
    bench.questions()
    # A known set goes by its name, so that a run is resumed from wherever it was started.
    known = (
        bench.name in (SAMPLE, *SETS)
        and question_file(bench.name).read_bytes() == bench.question_file.read_bytes()
    )
    config = run_config(decoder, args, bench.name if known else str(bench.question_file.resolve()))
    config.make_decoders()
    name = model_id(args.model_id or _label(args.model_path), config)
    file = args.answer_file or bench.answers / f"{name}.jsonl"
    part = (
        f"-questions-{config.skip}-{args.question_end or 'end'}"
        if config.skip or config.limit
        else ""
    )
    out = args.out or bench.folder / "model_run" / (name + part)
    try:  # now, rather than after an hour of answers
        merge_answers(file, [], name)
    except OSError as error:
        raise UserError(
            f"{file} cannot be written: {error.strerror}; give another --answer-file"
        ) from error
    from bench.report import (
        answer_rows,  # late: it loads matplotlib, and a wrong flag should be told at once
    )

    command = ["python", "-m", module, *sys.argv[1:]]
    status = 0
    try:
        run(
            config,
            out,
            command,
            workers=(args.num_gpus_total or args.num_gpus_per_model) // args.num_gpus_per_model,
        )
    except KeyboardInterrupt as stop:
        print(
            f"\ninterrupted; every finished turn is kept. To go on: {shlex.join(command)}",
            file=sys.stderr,
        )
        status = stop.status if isinstance(stop, Stopped) else 130
        if not (out / "run.json").exists():  # before the first turn
            return status
    turns, _ = read_turns(out / "turns.jsonl")
    rows = answer_rows(read_run(out), turns, decoder, name)
    merge_answers(file, rows, name)
    print(f"{file}: {len(rows)} answers")
    failed = sum(turn.failed for turn in turns)
    if failed:
        print(
            f"error: {failed} turns failed and have no answer; the same command tries them again",
            file=sys.stderr,
        )
    return status or int(failed > 0)


def main(decoder: str, doc: str, module: str) -> None:
    exit_cleanly(lambda: answer(decoder, doc, module))
