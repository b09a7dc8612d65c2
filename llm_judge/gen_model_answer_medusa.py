"""Answer MT-Bench with MEDUSA's static tree.

    python -m llm_judge.gen_model_answer_medusa --model-path demo --bench-name sample \\
        --medusa-choices own
    cd llm_judge && python gen_model_answer_medusa.py --template vicuna_v1.1 \\
        --model-path FasterDecoding/medusa-vicuna-7b-v1.3 --model-id medusa-vicuna-7b

Answers go to <data>/<bench>/model_answer/<model id>.jsonl (see llm_judge/judge_folder.py), in
FastChat's format. The model id names the decoder, the temperature and whatever else may change the
answers or their speed. An interrupted run goes on with the same command.
"""

import sys
from pathlib import Path

if not __package__:  # Run as a script, from wherever: the packages lie one folder up.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from bench.common.errors import exit_cleanly
from llm_judge import gen_model_answer


def main() -> int:
    return gen_model_answer.main("static", "llm_judge.gen_model_answer_medusa", __doc__)


if __name__ == "__main__":
    exit_cleanly(main)
