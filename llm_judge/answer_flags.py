"""The flags of the gen_model_answer commands, and the run that they ask for.

The flags have upstream's names and defaults. Every flag has an effect or is refused. A flag that
has no effect in a configuration (a posterior threshold at temperature 0, a static tree for the
dynamic decoder) may only be given with its default value.
"""

import argparse
from pathlib import Path

from bench.common.arguments import parser as make_parser
from bench.common.arguments import whole
from bench.common.errors import UserError
from bench.common.flags import add_flag, refuse_ignored
from bench.running.config import RunConfig
from decoders.spec import BASELINE
from llm_judge.flags import add_data_flags

# Flags of bench.run, with the same name, default and meaning here.
SAME_FLAGS = (
    "num_choices",
    "template",
    "seed",
    "dtype",
    "load_in_8bit",
    "load_in_4bit",
    "trust_remote_code",
    "compile",
)
TREE_FLAGS = ("nodes", "topk", "depth")  # Flags of bench.run, for the dynamic decoder only.
# The flags that have an effect only in some configurations, with upstream's defaults.
UPSTREAM = {
    "medusa_choices": "mc_sim_7b_63",
    "sampling": "typical",
    "fast": False,
    "posterior_threshold": RunConfig.posterior_threshold,
    "posterior_alpha": RunConfig.posterior_alpha,
    "top_p": 0.8,
}


def parser(decoder: str, module: str, doc: str | None) -> argparse.ArgumentParser:
    """The parser of the command that answers with `decoder`."""
    made = make_parser(f"python -m {module}", doc)
    add_flag(made, RunConfig, "model", "--model-path", required=True, default=None)
    made.add_argument(
        "--model-id",
        help="how the model is called in the name of its answers (default: the path's last part; "
        "for a folder also the first digits of a digest of its files)",
    )
    add_data_flags(made)
    made.add_argument(
        "--question-begin", type=whole(0), default=0, help="index of the first question, from 0 on"
    )
    made.add_argument(
        "--question-end", type=whole(1), help="index after the last question (default: all)"
    )
    made.add_argument(
        "--answer-file",
        type=Path,
        help="file of the answers (default: <data>/<bench>/model_answer/<model id>.jsonl)",
    )
    made.add_argument(
        "--out",
        type=Path,
        help="folder of the run, which an interrupted one is resumed from (default: in "
        "<data>/<bench>/model_run)",
    )
    add_flag(made, RunConfig, "max_new_tokens", "--max-new-token")
    add_flag(made, RunConfig, "temperature", default="0.0")
    _add_rule_flags(made)
    for name in (*SAME_FLAGS, *(TREE_FLAGS if decoder == "dynamic" else ())):
        add_flag(made, RunConfig, name)
    _add_device_flags(made)
    return made


def _add_rule_flags(made: argparse.ArgumentParser) -> None:
    """The flags of `UPSTREAM`."""
    add_flag(made, RunConfig, "tree", "--medusa-choices", default=UPSTREAM["medusa_choices"])
    made.add_argument(
        "--sampling",
        choices=("typical", "nucleus"),
        default=UPSTREAM["sampling"],
        help="above temperature 0: which part of the distribution is sampled from",
    )
    made.add_argument(
        "--fast",
        action="store_true",
        default=UPSTREAM["fast"],
        help="with typical sampling: accept by MEDUSA's threshold rule instead of by samples",
    )
    for name in ("posterior_threshold", "posterior_alpha", "top_p"):
        add_flag(made, RunConfig, name, default=UPSTREAM[name])


def _add_device_flags(made: argparse.ArgumentParser) -> None:
    add_flag(made, RunConfig, "device")
    made.add_argument(
        "--num-gpus-per-model",
        type=whole(1),
        default=1,
        help="GPUs that one model is spread over",
    )
    made.add_argument(
        "--num-gpus-total",
        type=whole(1),
        help="GPUs in all: as many models as fit on them answer at once, through Ray (default: "
        "those of one model)",
    )
    made.add_argument(
        "--max-gpu-memory",
        help="memory of each GPU for weights, such as 20GiB; with several GPUs a model",
    )


def run_config(decoder: str, args: argparse.Namespace, questions: str) -> RunConfig:
    """The run that the flags ask for. UserError for a flag that has no effect on it.

    questions: the field of `RunConfig`.
    """
    is_folder = Path(args.model_path).is_dir()
    config = RunConfig(
        decoders=(decoder,),
        model=str(Path(args.model_path).resolve()) if is_folder else args.model_path,
        questions=questions,
        temperature=args.temperature,
        max_new_tokens=args.max_new_token,
        **{name: getattr(args, name) for name in SAME_FLAGS},
        **_acceptance(decoder, args),
        **_tree(decoder, args),
        **_question_range(args),
        **_devices(args),
    )
    config.check()
    return config


def workers(args: argparse.Namespace) -> int:
    """How many models answer at once."""
    return (args.num_gpus_total or args.num_gpus_per_model) // args.num_gpus_per_model


def _acceptance(decoder: str, args: argparse.Namespace) -> dict[str, object]:
    """The fields of RunConfig that say which drafted tokens are accepted."""
    rules = ("sampling", "fast", "posterior_threshold", "posterior_alpha", "top_p")
    if decoder == BASELINE:
        refuse_ignored(args, UPSTREAM.get, rules, "the baseline drafts no tokens")
        return {}
    if args.temperature == 0:
        refuse_ignored(
            args, UPSTREAM.get, rules, "at temperature 0 only greedy's tokens are accepted"
        )
        return {}
    posterior = ("posterior_threshold", "posterior_alpha")
    if args.sampling == "nucleus":
        refuse_ignored(
            args, UPSTREAM.get, ("fast", *posterior), "--sampling is nucleus, not typical"
        )
        return {"top_p": args.top_p}
    refuse_ignored(args, UPSTREAM.get, ["top_p"], "--sampling is typical, not nucleus")
    return {
        "acceptance": "typical" if args.fast else "typical-sampled",
        **{name: getattr(args, name) for name in posterior},
    }


def _tree(decoder: str, args: argparse.Namespace) -> dict[str, object]:
    """The fields of RunConfig that say which tree is drafted."""
    if decoder == "static":
        choices = Path(args.medusa_choices)
        return {"tree": str(choices.resolve()) if choices.is_file() else args.medusa_choices}
    refuse_ignored(args, UPSTREAM.get, ["medusa_choices"], "this decoder has no static tree")
    return {name: getattr(args, name) for name in TREE_FLAGS} if decoder == "dynamic" else {}


def _question_range(args: argparse.Namespace) -> dict[str, int | None]:
    """The fields of RunConfig that say which questions are asked."""
    begin, end = args.question_begin, args.question_end
    if end is not None and end <= begin:
        raise UserError(f"--question-end is {end}; expected more than --question-begin, {begin}")
    return {"skip": begin, "limit": None if end is None else end - begin}


def _devices(args: argparse.Namespace) -> dict[str, object]:
    """The fields of RunConfig that say on which devices one model is loaded."""
    each, total = args.num_gpus_per_model, args.num_gpus_total
    if total is not None and total < each:
        raise UserError(
            f"--num-gpus-total is {total}, fewer than the {each} of --num-gpus-per-model"
        )
    if each > 1:
        if args.device != RunConfig.device:
            raise UserError(
                f"--device {args.device} and --num-gpus-per-model {each} exclude each other"
            )
        return {"device": "balanced", "gpus": each, "max_gpu_memory": args.max_gpu_memory}
    if args.max_gpu_memory is not None:
        raise UserError(
            "--max-gpu-memory has no effect on a model on one device; it needs "
            "--num-gpus-per-model of 2 or more"
        )
    return {"device": args.device}
