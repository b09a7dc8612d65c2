"""Decoding strategies: tensors in, tokens out. No file, no clock, no environment variable.

loop.py         the decoding loop: propose, verify, accept, commit
drafter.py      what the loop calls on a decoder           step.py  what a step returns
decoder.py      what a decoder is                          registry.py, spec.py  their names
tree.py         the candidate tree
accept.py       which drafted tokens are kept   acceptance.py  the rules' names, without torch
budget.py       how many nodes a step verifies             step_costs.py  what steps cost
draft_check.py  what a draft must be
draft_vocabulary.py   the tokens that are worth guessing
best_nodes.py, beam.py, draft_layer.py   what several decoders build trees with
kept_tokens.py, conversation.py   a turn's tokens on the host; which turns belong together
options.py      the options of decoders, read without importing torch
greedy.py, recycling.py, draft_model.py, hf_generate.py   decoders of one file
static/, dynamic/, conditional/, suffix/, hydra/, eagle/  decoders of several
model/          a language model and its heads
engine/         the same model, made fast
"""
