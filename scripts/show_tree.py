"""Pictures of candidate trees, each with its attention mask.

    python scripts/show_tree.py --prompt "Write a haiku about rain." --steps 1,2,3
    python scripts/show_tree.py --prompt "..." --decoder static --model my-heads/medusa \\
        --template vicuna_v1.1
    python scripts/show_tree.py --tree mc_sim_7b_63      a static tree's shape alone

With a prompt, the answer is decoded greedily. The trees of the chosen steps are drawn with their
tokens, the probability of each path where the decoder has one, and the path that the base model
accepted. White space in tokens is shown as ␣ and ⏎.
"""

from pathlib import Path

from bench.common.arguments import parser as make_parser
from bench.common.errors import exit_cleanly
from bench.common.flags import add_flags, refuse_ignored
from bench.running.config import RunConfig
from settings.step_numbers import step_numbers

MODEL_FLAGS = ("model", "template", "device", "dtype")


def main() -> None:
    parser = make_parser("python scripts/show_tree.py", __doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--prompt", help="what the user says")
    what.add_argument("--tree", help="a static tree: a published name or a JSON file")
    add = parser.add_argument
    add("--decoder", default="dynamic", help="with its options, such as dynamic:nodes=16")
    add("--steps", type=step_numbers, default=[1, 2, 3], help="numbers such as 1,2,5-8")
    add_flags(parser, RunConfig, MODEL_FLAGS)
    add("--out", type=Path, default=Path("results/trees"), help="folder of the pictures")
    add("--format", choices=("png", "svg", "pdf"), default="png", help="of the pictures")
    args = parser.parse_args()
    # Imported late: torch takes seconds to load, and a wrong flag should be told at once.
    from trees.pictures import static_tree, trees_of_answer, write_pictures

    if args.tree is not None:
        refuse_ignored(
            args,
            parser.get_default,
            ("decoder", "steps", *MODEL_FLAGS),
            "--tree shows a static tree's shape, without a model",
        )
        pictures = static_tree(args.tree)
    else:
        chosen = {name: getattr(args, name) for name in MODEL_FLAGS}
        config = RunConfig(decoders=(args.decoder,), temperature=0.0, **chosen)
        pictures = trees_of_answer(config, args.prompt, args.steps)
    for file in write_pictures(pictures, args.out, args.format):
        print(file)


if __name__ == "__main__":
    exit_cleanly(main)
