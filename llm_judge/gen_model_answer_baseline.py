"""Answer MT-Bench with the base model alone, one token a forward pass.

    python -m llm_judge.gen_model_answer_baseline --model-path demo --bench-name sample
    cd llm_judge && python gen_model_answer_baseline.py --template vicuna_v1.1 \\
        --model-path lmsys/vicuna-7b-v1.3

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
    return gen_model_answer.main("greedy", "llm_judge.gen_model_answer_baseline", __doc__)


if __name__ == "__main__":
    exit_cleanly(main)
