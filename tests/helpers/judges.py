"""A scripted judge behind HTTP, and a bench for it."""

import json
import subprocess
import sys
import time
from collections import Counter
from threading import Lock

from llm_judge import gen_judgment
from tests.helpers.paths import ROOT


class Judge:
    """A scripted endpoint.

    script: by the text of an answer, the steps that happen when it is to be judged, one at a call.
        The last one is repeated. A step is a reply's text, or a function of the request, whose
        `asked` is its body.
    default: the reply to all other answers.
    """

    def __init__(self, script=None, default="Fine. [[5]]"):
        self.script = {name: list(steps) for name, steps in (script or {}).items()}
        self.default = default
        self.asked = []  # (user prompt, body of the request, time)
        self.lock = Lock()

    def __call__(self, request):
        body = json.loads(request.rfile.read(int(request.headers["Content-Length"])))
        request.asked = body
        user = body["messages"][-1]["content"]
        with self.lock:
            self.asked.append((user, body, time.monotonic()))
            steps = next(
                (steps for name, steps in self.script.items() if name in user), [self.default]
            )
            step = steps.pop(0) if len(steps) > 1 else steps[0]
        if isinstance(step, str):
            say(request, step)
        else:
            step(request)

    @property
    def prompts(self):
        return Counter(user for user, _, _ in self.asked)


def say(request, content, finish="stop", **message):
    """Answer with a completion. finish: its finish_reason. message: further fields."""
    choice = {
        "index": 0,
        "finish_reason": finish,
        "message": {"role": "assistant", "content": content, **message},
    }
    usage = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
    completion = {
        "id": "x",
        "object": "chat.completion",
        "created": 0,
        "model": "j",
        "choices": [choice],
        "usage": usage,
    }
    request.send(200, json.dumps(completion).encode(), Content_Type="application/json")


def fails(status, message="no", **headers):
    body = json.dumps({"error": {"message": message, "type": "x", "code": None}}).encode()
    return lambda request: request.send(status, body, Content_Type="application/json", **headers)


class Tiny:
    """A bench in FastChat's layout: functions that fill it, and that run the command on it."""

    def __init__(self, data):
        self.data = data
        self.folder = data / "tiny"

    def questions(self, count, turns=1, category="writing"):
        rows = [
            {
                "question_id": n,
                "category": category,
                "turns": [f"question {n}.{turn}" for turn in range(1, turns + 1)],
            }
            for n in range(1, count + 1)
        ]
        self.write(self.folder / "question.jsonl", rows)

    def answers(self, model, answers):
        """Write a model's answer file. answers: by question_id, the texts of the turns."""
        rows = [
            {
                "question_id": n,
                "answer_id": "x",
                "model_id": model,
                "choices": [{"index": 0, "turns": turns}],
                "tstamp": 0,
            }
            for n, turns in answers.items()
        ]
        self.write(self.folder / "model_answer" / f"{model}.jsonl", rows)

    @staticmethod
    def write(path, rows):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def command(self, url, *flags):
        where = ["--bench-name", "tiny", "--data-dir", str(self.data)]
        judge = ["--judge-model", "j", "--api-base", f"{url}/v1", "--backoff", "0.001"]
        return [*where, *judge, *flags]

    def judge(self, monkeypatch, url, *flags):
        monkeypatch.setattr(sys, "argv", ["gen_judgment", *self.command(url, *flags)])
        return gen_judgment.main()

    def start(self, url, *flags):
        command = [sys.executable, "-m", "llm_judge.gen_judgment", *self.command(url, *flags)]
        return subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    @property
    def single(self):
        return self.folder / "model_judgment" / "j_single.jsonl"

    @property
    def pair(self):
        return self.folder / "model_judgment" / "j_pair.jsonl"
