"""Decoding strategies: tensors in, tokens out. No files (but a tree's JSON), no questions, no clocks.

model.py   a causal LM and its Medusa heads behind one small face
tree.py    the candidate tree
loop.py    propose -> verify -> accept -> commit
accept.py  which drafted tokens the base model accepts
greedy.py, static.py, dynamic.py   one decoder a file: how a tree is proposed
registry.py  name -> decoder; plug-ins
"""
