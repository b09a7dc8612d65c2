"""Benchmarks: what the scripts of the same names measure.

bandwidth.py    seconds of some work, and what a plain copy reaches
steps.py        time of a step by phase (bench_step.py)
products.py     the products of a step (bench_products.py)
shape_model.py  a model of some shape with random weights
shape_steps.py  its steps, and their kernels (bench_7b_shape.py)
sweeps.py       the runs of a sweep (sweep.py)
"""
