"""Pictures of candidate trees, each with its attention mask.

    python scripts/show_tree.py --prompt "Write a haiku about rain." --decoder dynamic --steps 1,2,3
    python scripts/show_tree.py --prompt "..." --decoder static --model my-heads/medusa --template vicuna_v1.1
    python scripts/show_tree.py --tree mc_sim_7b_63                    a static tree's shape alone

With a prompt, the answer is decoded greedily, and the trees of the chosen steps are drawn with their tokens, the probability
of each path where the decoder has one, and the path that the base model accepted. White space in tokens is shown as ␣ and ⏎.
"""

import argparse
from pathlib import Path

import torch

from bench.common.errors import UserError, exit_cleanly
from bench.common.files import safe_name
from bench.reporting.tree_picture import tree_figure
from bench.running.config import RunConfig
from bench.running.runner import Runner
from bench.store.trees import StepTree, token_texts
from decoders.static.decoder import Static
from decoders.tree import Tree


def answer_trees(runner: Runner, prompt: str, steps: int) -> list[StepTree]:
    """The trees of the first `steps` steps of the greedy answer to a prompt, with the runner's one decoder."""
    (decoder,) = runner.decoders.values()
    ids = runner.chat.prompt([prompt], [])
    room = runner.loaded.model.context - len(ids)
    if room < 1:
        raise UserError(
            f"the prompt has {len(ids)} tokens, but the model's context is {runner.loaded.model.context}"
        )
    rule, stop = runner.rule_and_stop(decoder, room, temperature=0.0, seed=0)
    made = zip(
        range(steps),
        decoder.decode(torch.tensor(ids, device=runner.loaded.model.device), rule, stop),
        strict=False,
    )
    try:
        return [StepTree.of(step) for _, step in made]
    except ValueError as error:
        raise UserError(f"decoder {runner.config.decoders[0]!r}: {error}") from error


def parse_steps(text: str) -> list[int]:
    """Step numbers, from 1 on.

    >>> parse_steps("1,3-5")
    [1, 3, 4, 5]
    """
    try:
        ranges = [[int(end) for end in part.split("-", 1)] for part in text.split(",")]
        steps = [step for each in ranges for step in range(each[0], each[-1] + 1)]
    except ValueError:
        steps = []
    if not steps or min(steps) < 1 or len(steps) > 1000:
        raise argparse.ArgumentTypeError(
            f"{text!r} are no steps; expected numbers from 1 on, such as 1,2,5-8"
        )
    return steps


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--prompt", help="what the user says")
    what.add_argument("--tree", help="a static tree: a published name or a JSON file")
    parser.add_argument(
        "--decoder",
        default="dynamic",
        help="with its options, such as dynamic:nodes=16 (default: dynamic)",
    )
    parser.add_argument(
        "--steps", type=parse_steps, default=[1, 2, 3], help="such as 1,2,5-8 (default: 1,2,3)"
    )
    parser.add_argument("--model", default="demo")
    parser.add_argument(
        "--template", help="FastChat conversation name; default: the tokenizer's own chat template"
    )
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    out = Path("results/trees")
    parser.add_argument(
        "--out", type=Path, default=out, help=f"folder of the pictures (default: {out})"
    )
    parser.add_argument("--format", choices=("png", "svg", "pdf"), default="png")
    args = parser.parse_args()

    pictures = {}
    if args.tree is not None:
        try:
            paths = Static(tree=args.tree).paths
        except ValueError as error:
            raise UserError(str(error)) from error
        if paths is None:
            raise UserError(
                "--tree own needs a model; use --decoder static:tree=own with a --prompt"
            )
        labels = ["root", *(f"#{path[-1] + 1}" for path in paths)]
        name = f"tree-{safe_name(Path(args.tree).stem)}"
        pictures[name] = tree_figure(
            Tree.from_paths(paths).parent.tolist(),
            labels,
            title=f"static tree {args.tree}: {len(labels)} nodes",
        )
    else:
        config = RunConfig(
            decoders=(args.decoder,),
            model=args.model,
            template=args.template,
            device=args.device,
            dtype=args.dtype,
            temperature=0.0,
        )
        config.check()
        runner = Runner.of(config)
        trees = answer_trees(runner, args.prompt, max(args.steps))
        if beyond := [step for step in args.steps if step > len(trees)]:
            raise UserError(f"the answer takes {len(trees)} steps; there is no step {beyond[0]}")
        text = token_texts(runner.loaded.tokenizer, trees)
        for step in args.steps:
            tree = trees[step - 1]
            prob = None if tree.log_prob is None else torch.tensor(tree.log_prob).exp().tolist()
            nodes = f"{len(tree.token)} node{'s' * (len(tree.token) > 1)}"
            title = f"{args.decoder}, step {step}: {nodes}, committed {len(tree.kept)}"
            labels = [text[token] for token in tree.token]
            pictures[f"tree-{safe_name(args.decoder)}-{step:03}"] = tree_figure(
                tree.parent, labels, prob, tree.kept, title
            )
    try:
        args.out.mkdir(parents=True, exist_ok=True)
        for name, figure in pictures.items():
            file = args.out / f"{name}.{args.format}"
            figure.savefig(file, dpi=150)
            print(file)
    except OSError as error:
        raise UserError(
            f"{args.out} cannot be written: {error.strerror}; give another --out"
        ) from error


if __name__ == "__main__":
    exit_cleanly(main)
