"""Where Triton's kernels run in tests: on CUDA, or in Triton's interpreter."""

import os

import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
INTERPRETER = "TRITON_INTERPRET"  # The environment variable that switches it on.
NEEDS_TRITON = "Triton is not installed (pip install triton)"
TOLERANCE = {torch.float32: 1e-4, torch.float16: 5e-3, torch.bfloat16: 3e-2}


def choose() -> None:
    """Switch the interpreter on where there is no CUDA. Triton reads this when it is imported."""
    if DEVICE == "cpu":
        os.environ[INTERPRETER] = "1"


def compiling() -> dict[str, str]:
    """The environment of a process in which kernels are compiled, not interpreted."""
    return {name: value for name, value in os.environ.items() if name != INTERPRETER}
