"""The runs of a sweep: every combination of values, in as few runs as can be."""

import itertools
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from bench.common.errors import UserError, warn
from bench.common.files import safe_name
from decoders import registry
from decoders.spec import BASELINE, Spec

SOME_FAILED = 1  # Exit status of bench.run where some turns failed.
Values = Mapping[str, Sequence[str]]  # Name of an option or flag -> its values as they were typed.


def specs(decoders: Sequence[str], values: Values) -> list[str]:
    """Specs: greedy, and each decoder with each combination of values of its options.

    UserError where there is no such decoder.

    >>> specs(["dynamic"], {"nodes": ["8", "16"], "topk": ["4"]})
    ['greedy', 'dynamic:nodes=8:topk=4', 'dynamic:nodes=16:topk=4']
    """
    made = [Spec.parse(BASELINE)]
    unused = set(values)
    for text in decoders:
        try:
            spec = Spec.parse(text)
            is_open = registry.options(spec.name) - spec.options.keys()
        except ValueError as error:
            raise UserError(str(error)) from error
        own = {name: values[name] for name in values if name in is_open}
        unused -= own.keys()
        for chosen in combinations(own):
            label = spec.own_label
            if label is not None and chosen:
                label = "-".join((label, *(f"{name}{value}" for name, value in chosen.items())))
            made.append(Spec(spec.name, spec.options | chosen, label))
    if unused:
        raise UserError(f"--{min(unused)} has no effect on {', '.join(decoders)}; leave it out")
    return list(dict.fromkeys(map(str, made)))


def combinations(values: Values) -> Iterator[dict[str, str]]:
    """Every choice of one value each; the last name varies first.

    >>> list(combinations({"nodes": ["8", "16"], "topk": ["4"]}))
    [{'nodes': '8', 'topk': '4'}, {'nodes': '16', 'topk': '4'}]
    """
    for chosen in itertools.product(*values.values()):
        yield dict(zip(values, chosen, strict=True))


def sweep(
    decoders: Sequence[str], options: Values, run_wide: Values, out: Path, flags: Sequence[str]
) -> tuple[int, list[Path]]:
    """Do the runs, one for each combination of `run_wide`.

    options: of decoders. flags: further ones of bench.run. Returns the exit status of the first run
    that could not be done, else SOME_FAILED where turns have failed, else 0; and the folders of the
    runs.
    """
    texts = specs(decoders, options)
    folders: list[Path] = []
    worst = 0
    for chosen in combinations(run_wide):
        folder = out / safe_name("-".join(chosen.values()) or "run")
        line = [sys.executable, "-m", "bench.run", "--decoder", ",".join(texts)]
        line += [word for name, value in chosen.items() for word in (f"--{name}", value)]
        line += ["--out", str(folder), *flags]
        print(folder, file=sys.stderr)
        status = subprocess.run(line).returncode
        if status == SOME_FAILED:
            warn("some turns failed; the same command tries them again")
            worst = status
        elif status != 0:
            return status, folders
        folders.append(folder)
    return worst, folders
