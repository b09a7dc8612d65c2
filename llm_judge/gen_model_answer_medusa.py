"""Answer MT-Bench with MEDUSA's static tree.

    python -m llm_judge.gen_model_answer_medusa --model-path demo --bench-name sample --medusa-choices own
    cd llm_judge && python gen_model_answer_medusa.py --template vicuna_v1.1 \\
        --model-path FasterDecoding/medusa-vicuna-7b-v1.3 --model-id medusa-vicuna-7b

Answers go to <data>/<bench>/model_answer/<model id>.jsonl (see llm_judge/layout.py), in FastChat's format. The model id
says what the decoder is, the temperature and whatever else was chosen. An interrupted run goes on with the same command.
"""

import sys
from pathlib import Path

if not __package__:  # run as a script, from wherever: the packages lie one folder up
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from llm_judge.gen_model_answer import main

if __name__ == "__main__":
    main("static", __doc__, "llm_judge.gen_model_answer_medusa")
