"""Tokens per inference and speed against nodes, topk, depth, acceptance and temperature.

python scripts/sweep.py --nodes 4,8,16,32,64 --temperature 0 --limit 8 --out results/nodes
python scripts/sweep.py --decoder dynamic,static --nodes 16,64 --topk 8,32 --temperature 0 --out results/topk
python scripts/sweep.py --acceptance lossless,typical --temperature 0.3,0.7,1.0 --questions mt_bench --out results/typical

Every combination of nodes, topk and depth is a decoder of one run, so that all of them answer each question in turn, on one
loaded model, beside greedy. Acceptance and temperature belong to a whole run: each combination of them is a run in a folder
of its own. Any other flag is bench.run's. The same command goes on after an interruption; at its end stand the table and the
figures of all runs, in --out.
"""

import argparse
import itertools
import subprocess
import sys
from pathlib import Path

from bench import report
from bench.common.errors import UserError, exit_cleanly
from bench.common.files import safe_name
from decoders import registry

OPTIONS = ("nodes", "topk", "depth")  # of a decoder
RUN_WIDE = ("acceptance", "temperature")


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument(
        "--decoder", default="dynamic", help="comma-separated; greedy is added (default: dynamic)"
    )
    for name in (*OPTIONS, *RUN_WIDE):
        made.add_argument(f"--{name}", metavar="VALUES", help="comma-separated")
    made.add_argument(
        "--out",
        type=Path,
        required=True,
        help="folder of the runs, and of the table and figures of all",
    )
    return made


def specs(decoders: list[str], values: dict[str, list[str]]) -> list[str]:
    """greedy, and every decoder with every combination of the values that it has options for.

    >>> specs(["dynamic"], {"nodes": ["8", "16"], "topk": ["4"]})
    ['greedy', 'dynamic:nodes=8:topk=4', 'dynamic:nodes=16:topk=4']
    """
    made = ["greedy"]
    for decoder in decoders:
        try:
            own = [name for name in values if name in registry.open_options(decoder)]
        except KeyError:
            raise UserError(
                f"no decoder {decoder!r}; available: {', '.join(sorted(registry.available()))}"
            ) from None
        for combination in itertools.product(*(values[name] for name in own)):
            made.append(
                ":".join(
                    [
                        decoder,
                        *(f"{name}={value}" for name, value in zip(own, combination, strict=True)),
                    ]
                )
            )
    return list(dict.fromkeys(made))


def main() -> int:
    args, rest = parser().parse_known_args()

    def given(name: str) -> list[str]:
        return [each.strip() for each in (getattr(args, name) or "").split(",") if each.strip()]

    decoders = specs(given("decoder"), {name: given(name) for name in OPTIONS if given(name)})
    run_wide = {name: given(name) for name in RUN_WIDE if given(name)}
    folders = []
    for combination in itertools.product(*run_wide.values()):
        chosen = dict(zip(run_wide, combination, strict=True))
        folder = args.out / safe_name("-".join(chosen.values()) or "run")
        flags = [word for name, value in chosen.items() for word in (f"--{name}", value)]
        line = [
            sys.executable,
            "-m",
            "bench.run",
            "--decoder",
            ",".join(decoders),
            *flags,
            "--out",
            str(folder),
            *rest,
        ]
        print(folder, file=sys.stderr)
        status = subprocess.run(line).returncode
        if status == 1:
            print("warning: some turns failed; the same command tries them again", file=sys.stderr)
        elif status != 0:
            return status
        folders.append(str(folder))
    return report.main([*folders, "--out", str(args.out)])


if __name__ == "__main__":
    exit_cleanly(main)
