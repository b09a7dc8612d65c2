"""From a script's command line to its settings."""

from dataclasses import fields
from typing import TypeVar

from bench.common.arguments import parser as make_parser
from bench.common.flags import add_flags
from bench.running.config import RunConfig

T = TypeVar("T")


def parse_settings(script: str, doc: str | None, settings: type[T]) -> T:
    """The settings that the command line asks for.

    A field without a flag of its own has the flag that bench.run has for it, default included.
    script: the name of its file. doc: its docstring, which --help shows.
    """
    parser = make_parser(f"python scripts/{script}", doc)
    add_flags(parser, settings)
    shared = [field.name for field in fields(settings) if not field.metadata]
    add_flags(parser, RunConfig, shared)
    return settings(**vars(parser.parse_args()))
