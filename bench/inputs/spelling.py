"""What the names of models and devices can be, by their spelling alone. Needs no torch.

So a typing error is told before torch is loaded. Whether there is such a model or device is checked
later, by `bench.inputs.locations` and `bench.inputs.devices`.
"""

import re
from difflib import get_close_matches
from pathlib import Path

from bench.common.errors import UserError
from bench.inputs.published_models import MODELS

DEMO = "demo"
BALANCED = "balanced"  # One model, spread over several GPUs.
ALIKE = 0.75  # How alike a name and a misspelling of it are at least, for difflib.
# Also devices that --help does not list. torch knows them, some through a vendor's package.
DEVICE = re.compile(rf"auto|{BALANCED}|(cpu|cuda|mps|xpu|npu|hpu|mtia|privateuseone)(:\d+)?")


def check_model_spelling(model: str) -> None:
    """UserError where a name is a path to nothing, or almost the name of a model of ours."""
    if model in (DEMO, *MODELS) or Path(model).exists():
        return
    is_file = model.endswith(".gguf")
    if is_file or model.startswith((".", "/", "~")) or model.count("/") > 1:
        raise UserError(f"model {'file' if is_file else 'folder'} {model!r} does not exist")
    near = get_close_matches(model.casefold(), [DEMO, *MODELS], 1, ALIKE)
    if near and "/" not in model:  # A name with a slash is a hub id or a folder.
        raise UserError(f"no model at {model!r}; did you mean {near[0]!r}?")


def check_device_spelling(device: str) -> None:
    """UserError where torch knows no device of this name."""
    if not DEVICE.fullmatch(device):
        raise unknown_device(device)


def unknown_device(device: str) -> UserError:
    """The error that says which devices there are."""
    return UserError(
        f"unknown device {device!r}; expected auto, {BALANCED}, cpu, cuda, cuda:N or mps"
    )
