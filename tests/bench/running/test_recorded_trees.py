"""Trees of steps, made ready for trees.jsonl."""

import pytest
import torch

from bench.running.recorded_trees import step_tree, token_texts
from bench.store.trees import LEAST_LOG_PROB, AnswerTrees, read_trees, write_trees
from decoders.step import Step
from decoders.tree import NO_GUESS, Draft, Tree
from tests.helpers.models import tiny_tokenizer


def test_tokens_are_made_visible():
    tokenizer = tiny_tokenizer()
    ids = tokenizer("a b\n", add_special_tokens=False).input_ids
    draft = Draft(Tree.from_parent([0, 0, 1, 2]), torch.tensor(ids))
    step = step_tree(Step([ids[0]], 4, None, draft, torch.tensor([0, 0, 0])))
    assert list(token_texts(tokenizer, [step]).values()) == ["a", "b", "␣", "⏎"]
    assert step.kept == [0]


def test_a_node_without_a_guess_has_a_text_too():
    draft = Draft(Tree.from_parent([0, 0]), torch.tensor([5, NO_GUESS]))
    step = step_tree(Step([5], 2, None, draft, torch.tensor([0])))
    assert token_texts(tiny_tokenizer(), [step])[NO_GUESS] == "(none)"


def test_a_log_probability_of_nothing_can_be_written_and_read(tmp_path):
    log_prob = torch.tensor([0.0, -1.0, -torch.inf])
    draft = Draft(Tree.from_parent([0, 0, 0]), torch.tensor([5, 6, 7]), log_prob)
    tree = step_tree(Step([5], 3, None, draft, torch.tensor([0])))
    write_trees(tmp_path, [AnswerTrees(1, "d", 0, 1, [tree], {5: "a", 6: "b", 7: "c"})])
    [step] = read_trees(tmp_path)[1, "d", 0, 1].steps
    assert step.log_prob == [0.0, -1.0, LEAST_LOG_PROB]
    log_prob[2] = torch.nan
    with pytest.raises(ValueError, match="are NaN"):
        step_tree(Step([5], 3, None, draft, torch.tensor([0])))


def test_a_decoder_without_trees_says_so():
    with pytest.raises(ValueError, match="drafts no tree that could be shown"):
        step_tree(Step([5], 1, None))
