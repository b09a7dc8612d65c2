"""The examples in docstrings are right."""

import doctest

import pytest

from llm_judge import judging, model_id, thinking, verdicts


@pytest.mark.parametrize(
    "module", [judging, model_id, thinking, verdicts], ids=lambda module: module.__name__
)
def test_the_examples_in_docstrings(module):
    result = doctest.testmod(module)
    assert result.attempted > 0 and result.failed == 0
