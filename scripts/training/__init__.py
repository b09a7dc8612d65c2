"""Training and fitting: what train_heads.py, calibrate.py, search_tree.py and others call.

models.py           loading the model that the flags name
corpus.py           conversations, and their answers as token ids; json_array.py reads one layout
distillation.py     answers of the model itself
heads_training.py   the loop of train_heads.py
kind.py             what a kind of heads is; medusa.py, hydra.py and eagle.py are kinds
batches.py          batches of answers, and the rows of one that heads learn from
hidden_states.py    the frozen model's hidden states, which may be kept in a file
columns.py          losses over the model's output projection, or over a sample of its columns
head_files.py       folders with trained heads
tree_search.py      the best static tree
calibration_notes.py, calibration_fit.py   candidates of `conditional`, and weights fitted to them
frequent_tokens.py  the draft vocabulary
perplexity.py       loss on held-out conversations
tokenizer.py, packed_corpus.py, demo_training.py   the demo's base model
loops.py            less repetition in greedy answers
schedule.py         learning rate, and how far a session goes
costs.py            memory and time of a training, printed before they are spent
checkpoints.py      state that survives an interruption
"""
