"""MT-Bench's own conventions: FastChat's folders, answer commands, judge and result tables.

    python -m llm_judge.gen_model_answer_medusa_dynamic --model-path demo --bench-name sample
    python -m llm_judge.gen_judgment --bench-name sample --judge-model gpt-4
    python -m llm_judge.show_result --bench-name sample

The five commands have upstream's names. Behind the three that answer is gen_model_answer.py.
"""
