"""Trees of steps as `bench.store.trees` records them."""

from collections.abc import Iterable

from transformers import PreTrainedTokenizerBase

from bench.store.trees import LEAST_LOG_PROB, StepTree
from decoders.step import Step
from decoders.tree import NO_GUESS

INVISIBLE = str.maketrans({" ": "␣", "\n": "⏎", "\r": "␍", "\t": "⇥"})


def step_tree(step: Step) -> StepTree:
    """The tree of a step. ValueError where the decoder has none, or a log probability is NaN."""
    if step.draft is None or step.path is None:
        raise ValueError("this decoder drafts no tree that could be shown")
    tree, token, log_prob = step.draft.tree, step.draft.token, step.draft.log_prob
    if log_prob is not None:
        if log_prob.isnan().any():
            raise ValueError("the log probabilities of a tree are NaN")
        log_prob = [round(each, 3) for each in log_prob.clamp(min=LEAST_LOG_PROB).tolist()]
    # The path leaves the root out, and repeats its last node as padding.
    kept = list(dict.fromkeys([0, *step.path.tolist()]))
    return StepTree(tree.parent.tolist(), token.tolist(), log_prob, kept)


def token_texts(tokenizer: PreTrainedTokenizerBase, steps: Iterable[StepTree]) -> dict[int, str]:
    """The text of each token in some trees, with visible white space.

    A token that holds only some bytes of a character is shown by its name in the tokenizer.
    """
    texts = {}
    for token in sorted({token for step in steps for token in step.token}):
        if token == NO_GUESS:
            texts[token] = "(none)"
            continue
        text = tokenizer.decode([token], clean_up_tokenization_spaces=False)
        if "\ufffd" in text:
            text = tokenizer.convert_ids_to_tokens(token)
        texts[token] = text.translate(INVISIBLE)
    return texts
