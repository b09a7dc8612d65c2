"""Thoughts before an answer, under the names that models and prompts give them."""

import pytest

from llm_judge.thinking import outside_thinking, without_thinking
from llm_judge.verdicts import grade

TAGS = [
    ("<think>", "</think>"),
    ("<think >", "</think >"),
    ("<think id=1>", "</think>"),
    ('<Thinking type="deep thought">', "</thinking>"),
    ("<thought>", "</thoughts>"),
    ("<seed:think>", "</seed:think>"),
    ("<reasoning>", "</reasoning>"),
    ("<reflection>", "</reflection>"),
    ("<analysis>", "</analysis>"),
    ("<scratchpad>", "</scratchpad>"),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|channel|>analysis<|message|>", "<|channel|>final<|message|>"),
]


@pytest.mark.parametrize(("opening", "closing"), TAGS, ids=[opening for opening, _ in TAGS])
def test_thoughts_are_left_out(opening, closing):
    thoughts = f"{opening}Rating: [[3]] at first.{closing}"
    assert without_thinking(f"{thoughts} [[9]]") == "[[9]]"
    assert without_thinking(f"Rating: [[3]]{closing}[[9]]") == "[[9]]"
    assert outside_thinking(f"Good. {thoughts}[[9]]") == "Good. [[9]]"
    assert grade(f"{thoughts} [[9]]") == 9


@pytest.mark.parametrize("opening", [opening for opening, _ in TAGS])
def test_thoughts_without_an_end_are_no_verdict(opening):
    assert without_thinking(f"{opening}\nRating: [[3]] fits at first") == ""
    assert grade(f"{opening}\nRating: [[3]] fits at first") == -1
    assert grade(f"Let me think.\n{opening}\nRating: [[3]] at first") == -1


def test_a_whole_reply_may_stand_in_an_element_that_a_prompt_asks_for():
    reply = "<analysis>Good. Rating: [[8]]</analysis>\n"
    assert without_thinking(reply) == "Good. Rating: [[8]]" and grade(reply) == 8
    assert without_thinking(reply.replace("analysis", "think")) == ""


def test_thoughts_hold_others_to_their_own_end():
    inner = "<reflection>Is it?</reflection>"
    text = f"<thinking>A river. {inner} A lake. {inner} No.</thinking>The Rhine."
    assert without_thinking(text) == outside_thinking(text) == "The Rhine."
    assert outside_thinking(f"Well. {text}") == "Well. The Rhine."
    assert without_thinking(f"<think>A river. {inner} A lake.") == ""


@pytest.mark.parametrize(
    "text",
    [
        "It leaves its <think> tag open. Rating: [[9]]",
        "<analysis of the text> Rating: [[9]]",
        "<thinker>Rating: [[9]]</thinker>",
    ],
)
def test_other_text_stays(text):
    assert outside_thinking(text) == text and grade(text) == 9
