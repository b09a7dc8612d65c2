"""Pictures of trees: a static one by its shape, or those of an answer step by step."""

from collections.abc import Mapping
from itertools import islice
from math import exp
from pathlib import Path

from matplotlib.figure import Figure

from bench.common.errors import UserError
from bench.common.files import safe_name, writing
from bench.inputs.fitted import take_named_files
from bench.reporting.tree_picture import tree_figure
from bench.running.config import RunConfig
from bench.running.recorded_trees import token_texts
from bench.running.replay import steps_with_trees
from bench.running.runner import Runner
from bench.store.trees import StepTree
from decoders.static.decoder import Static
from decoders.tree import Tree

DPI = 150


def static_tree(name: str) -> dict[str, Figure]:
    """The picture of a static tree's shape, by the name of its file.

    name: of a published tree, or of a JSON file. UserError where it is neither.
    """
    decoder = Static(tree=name)
    try:
        take_named_files(decoder)
    except ValueError as error:
        raise UserError(str(error)) from error
    if decoder.paths is None:
        raise UserError("--tree own needs a model; use --decoder static:tree=own with a --prompt")
    labels = ["root", *(f"#{path[-1] + 1}" for path in decoder.paths)]
    parent = Tree.from_paths(decoder.paths).parent.tolist()
    title = f"static tree {name}: {len(labels)} nodes"
    return {f"tree-{safe_name(Path(name).stem)}": tree_figure(parent, labels, title=title)}


def answer_trees(runner: Runner, prompt: str, steps: int) -> list[StepTree]:
    """The trees of the first `steps` steps of the greedy answer, with the runner's one decoder.

    UserError where the prompt is too long, or the decoder drafts no trees.
    """
    ((label, decoder),) = runner.decoders.items()
    ids = runner.generator.prompt([prompt], [])
    made = islice(steps_with_trees(runner, decoder, ids, temperature=0.0, seed=0), steps)
    try:
        return [tree for _, tree in made]
    except ValueError as error:
        raise UserError(f"decoder {label!r}: {error}") from error


def trees_of_answer(config: RunConfig, prompt: str, steps: list[int]) -> dict[str, Figure]:
    """The pictures of some steps of the greedy answer to a prompt, by the names of their files.

    config: of one decoder. steps: from 1 on. UserError where there is no such step.
    """
    config.check()
    runner = Runner.load(config)
    trees = answer_trees(runner, prompt, max(steps))
    if beyond := [step for step in steps if step > len(trees)]:
        raise UserError(f"the answer takes {len(trees)} steps; there is no step {beyond[0]}")
    text = token_texts(runner.loaded.tokenizer, trees)
    (label,) = config.labels
    pictures = {}
    for step in steps:
        tree = trees[step - 1]
        nodes = f"{len(tree.token)} node{'s' * (len(tree.token) > 1)}"
        title = f"{label}, step {step}: {nodes}, committed {len(tree.kept)}"
        pictures[f"tree-{safe_name(label)}-{step:03}"] = _figure(tree, text, title)
    return pictures


def _figure(tree: StepTree, text: Mapping[int, str], title: str) -> Figure:
    prob = None if tree.log_prob is None else list(map(exp, tree.log_prob))
    labels = [text[token] for token in tree.token]
    return tree_figure(tree.parent, labels, prob, tree.kept, title)


def write_pictures(pictures: Mapping[str, Figure], folder: Path, form: str) -> list[Path]:
    """Write pictures by name, in a format by its suffix. UserError where that fails."""
    files = [folder / f"{name}.{form}" for name in pictures]
    with writing(folder, "give another --out"):
        folder.mkdir(parents=True, exist_ok=True)
        for file, figure in zip(files, pictures.values(), strict=True):
            figure.savefig(file, dpi=DPI)
    return files
