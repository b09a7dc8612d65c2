"""Where Triton's kernels run in tests: on CUDA, or in Triton's interpreter.

Triton reads the switch when it is imported, as transformers' models do. So `conftest.py` imports
this first.
"""

import os

import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
INTERPRETER = "TRITON_INTERPRET"  # The environment variable that switches it on.
if DEVICE == "cpu":
    os.environ[INTERPRETER] = "1"
NEEDS_TRITON = "Triton is not installed (pip install triton)"
TOLERANCE = {torch.float32: 1e-4, torch.float16: 5e-3, torch.bfloat16: 3e-2}


def compiling() -> dict[str, str]:
    """The environment of a process in which kernels are compiled, not interpreted."""
    return {name: value for name, value in os.environ.items() if name != INTERPRETER}
