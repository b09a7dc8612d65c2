"""Triton kernels, for CUDA. Triton may be missing, so these modules are imported late.

tree_attention.py   attention of a tree's few rows over many committed positions
cache_rows.py       a layer's new keys and values, written to the cache at once

Each has a function in plain PyTorch with the same arguments, which is its reference.
`decoders.engine.own_kernels` decides which of them a model uses.
"""
