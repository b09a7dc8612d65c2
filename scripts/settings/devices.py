"""The flag --device of scripts that run on one device."""

import argparse

from bench.common.flags import flag
from bench.inputs.spelling import BALANCED


def one_device(default: str) -> str:
    """A field of settings that is the flag --device."""
    return flag(default, "auto, cpu, cuda, cuda:N or mps", parse=_parse)


def _parse(text: str) -> str:
    """An argument type: the name of one device. `bench.inputs.devices` checks that it is there."""
    if text == BALANCED:
        raise argparse.ArgumentTypeError(f"{text!r} means several devices; expected one")
    return text
