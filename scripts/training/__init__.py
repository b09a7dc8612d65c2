"""Training and fitting: what the scripts of the same names do.

models.py           loading the model that the flags name
corpus.py           chat JSONL, and its answers as token ids
distillation.py     answers of the model itself
heads.py            Medusa heads: batches, the loss, starting weights, files
heads_training.py   the loop of train_heads.py
tree_search.py      the best static tree
calibration_notes.py, calibration_fit.py   candidates of `conditional`, and weights fitted to them
frequent_tokens.py  the draft vocabulary
perplexity.py       loss on held-out conversations
tokenizer.py, packed_corpus.py, demo_training.py   the demo's base model
loops.py            less repetition in greedy answers
schedule.py         learning rate, and how far a sitting goes
checkpoints.py      state that survives an interruption
"""
