"""What a run does with the prompts of a model, from its start to its being resumed."""

import json

import pytest

from bench.store.turn import read_turns
from tests.helpers.checkpoints import write_base
from tests.helpers.commands import basics, bench
from tests.helpers.models import tiny_tokenizer


def base_with(folder, template, tokens=(), **changes):
    """A plain model whose tokenizer has this template and further tokens."""
    write_base(folder, **changes)
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(list(tokens))
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return folder


TOLD = "{{ strftime_now('%B') }}{% for m in messages %}{{ m['content'] }}\n{% endfor %}"
FAILS = "{{ messages[0]['content'] }}{{ tools | length }}"
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def test_a_resumed_run_tells_its_template_the_time_of_its_beginning(tmp_path, questions):
    base, out = base_with(tmp_path / "base", TOLD), tmp_path / "run"
    arguments = [*basics(base, questions, out), "--decoder", "greedy", "--limit", 1]
    assert bench(*arguments) == 0
    run = json.loads((out / "run.json").read_text())
    del run["model"]["prompt"]  # It is of the date that this test changes.
    for month, date in (("May", "2024-05-31"), ("September", "2024-09-01")):
        start = f"{date}T12:00:00+00:00"
        run["sessions"][0]["start"] = start
        (out / "run.json").write_text(json.dumps(run | {"start": start}))
        first, _ = (out / "turns.jsonl").read_text().splitlines(keepends=True)
        (out / "turns.jsonl").write_text(first)
        assert bench(*arguments) == 0
        turn = read_turns(out / "turns.jsonl")[0][1]
        answer = json.loads(first)["text"]
        assert turn.prompt_tokens == len(f"{month}1 + 1?\n{answer}\nAnd twice?\n")
        assert json.loads((out / "run.json").read_text())["start"] == start


def test_a_start_that_is_no_time_is_told(tmp_path, questions, model, capsys):
    out = tmp_path / "run"
    arguments = [*basics(model, questions, out), "--decoder", "greedy", "--limit", 1]
    assert bench(*arguments) == 0
    run = json.loads((out / "run.json").read_text())
    (out / "run.json").write_text(json.dumps(run | {"start": "yesterday"}))
    assert bench(*arguments) == 2
    assert "run.json has start 'yesterday'" in capsys.readouterr().err


def test_a_template_that_fails_is_not_blamed_on_the_decoder(tmp_path, questions, capsys):
    base = base_with(tmp_path / "base", FAILS)
    capsys.readouterr()  # transformers' progress bar.
    assert bench(*basics(base, questions, tmp_path / "run"), "--decoder", "greedy") == 2
    error = capsys.readouterr().err
    assert "chat template cannot be filled in: TypeError" in error
    assert "decoder" not in error and error.count("\n") == 1


def test_a_token_that_the_model_does_not_have_is_named(tmp_path, questions, capsys):
    """Its turn markers were added to the tokenizer, and the model was never resized."""
    base = base_with(tmp_path / "base", CHATML, ["<|im_start|>", "<|im_end|>"])
    assert bench(*basics(base, questions, tmp_path / "run"), "--decoder", "greedy") == 2
    error = capsys.readouterr().err
    assert "the prompt has token 101 ('<|im_end|>')" in error and "has 101 tokens" in error


@pytest.mark.parametrize("wrong", [0, 1])
def test_a_question_with_such_a_token_fails_alone(tmp_path, wrong):
    """Also the first one, which decoders are warmed up with where it has a prompt."""
    tokens = ["<|extra|>", "<|more|>"]
    base = base_with(tmp_path / "base", tiny_tokenizer().chat_template, tokens)
    asked = tmp_path / "q.jsonl"
    rows = [
        {"question_id": number, "category": "math", "turns": [text]}
        for number, text in enumerate("<|more|>" if at == wrong else "hi" for at in range(3))
    ]
    asked.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert bench(*basics(base, asked, tmp_path / "run"), "--decoder", "greedy") == 1
    turns = read_turns(tmp_path / "run" / "turns.jsonl")[0]
    assert [turn.failed for turn in turns] == [at == wrong for at in range(3)]
    assert "vocabulary has 101 tokens" in turns[wrong].error


def test_an_answer_ends_where_the_template_ends_it(tmp_path, questions):
    """The end of a turn is no eos here. The model writes it as any other token."""
    tokens = ["<|im_start|>", "<|im_end|>"]
    base, out = base_with(tmp_path / "base", CHATML, tokens, vocab_size=103), tmp_path / "run"
    given = ["--decoder", "greedy,hf-greedy,conditional", "--max-new-tokens", 400]
    sampled = ["--temperature", 20]  # Almost any token may follow.
    assert bench(*basics(base, questions, out), *given, *sampled) == 0
    turns = read_turns(out / "turns.jsonl")[0]
    ends = [turn for turn in turns if turn.finish_reason == "eos"]
    end = 101
    assert any(turn.token_ids[-1] == end for turn in ends)
    for turn in turns:
        assert end not in turn.token_ids[:-1] and "<|im_end|>" not in turn.text
    by_key = {turn.key: turn for turn in turns}
    for turn in turns:
        greedy = by_key[turn.question_id, "greedy", turn.choice, turn.turn]
        assert turn.token_ids == greedy.token_ids


def test_what_is_told_of_a_model_is_recorded(tmp_path, questions, capsys):
    base, out = base_with(tmp_path / "base", tiny_tokenizer().chat_template), tmp_path / "run"
    path = base / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"repetition_penalty": 1.3}))
    given = [*basics(base, questions, out), "--temperature", 0]
    assert bench(*given, "--decoder", "greedy,hf-greedy,prompt-lookup") == 0
    assert "warning: the model's generation_config.json asks for repetition_penalty=1.3" in (
        capsys.readouterr().err
    )
    run = json.loads((out / "run.json").read_text())
    assert "repetition_penalty=1.3" in run["sessions"][0]["warnings"][0]
    turns = {turn.key: turn.token_ids for turn in read_turns(out / "turns.jsonl")[0]}
    for question, _, choice, number in turns:
        greedy = turns[question, "greedy", choice, number]
        for decoder in ("hf-greedy", "prompt-lookup"):
            assert turns[question, decoder, choice, number] == greedy


@pytest.mark.parametrize("ids", [("81_DE", "82_DE"), ("HumanEval/0", 7)])
def test_questions_whose_ids_are_texts(tmp_path, model, ids):
    """Answered, interrupted, resumed and reported, with the ids that they have."""
    asked, out = tmp_path / "q.jsonl", tmp_path / "run"
    rows = [{"question_id": each, "category": "", "turns": ["hi", "ho"]} for each in ids]
    asked.write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = [*basics(model, asked, out), "--decoder", "greedy,dynamic", "--temperature", 0]
    assert bench(*arguments) == 0
    whole = (out / "turns.jsonl").read_text().splitlines(keepends=True)
    (out / "turns.jsonl").write_text("".join(whole[:3]))
    assert bench(*arguments) == 0
    turns = read_turns(out / "turns.jsonl")[0]
    assert {turn.question_id for turn in turns} == set(ids) and len(turns) == 8
    assert {turn.category for turn in turns} == {"none"}
    answers = (out / "answers" / "tiny-dynamic.jsonl").read_text().splitlines()
    assert {json.loads(line)["question_id"] for line in answers} == set(ids)
    assert all(str(each) in (out / "report.html").read_text() for each in ids)
