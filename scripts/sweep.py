"""Tokens per inference and speed against nodes, topk, depth, acceptance and temperature.

    python scripts/sweep.py --nodes 4,8,16,32,64 --temperature 0 --limit 8 --out results/nodes
    python scripts/sweep.py --decoder dynamic,static --nodes 16,64 --topk 8,32 --temperature 0 \\
        --out results/topk
    python scripts/sweep.py --acceptance lossless,typical --temperature 0.3,0.7,1.0 \\
        --questions mt_bench --out results/typical

Every combination of nodes, topk and depth is a decoder of one run. So all of them answer each
question in turn, on one loaded model, together with greedy. Acceptance and temperature belong to a
whole run: each combination of them is a run in a folder of its own. Any other flag is passed on to
bench.run.

The same command goes on after an interruption. At its end, --out holds the table and the figures of
all runs.
"""

from pathlib import Path

from bench import report
from bench.common.arguments import parser as make_parser
from bench.common.arguments import texts
from bench.common.errors import exit_cleanly

OPTIONS = ("nodes", "topk", "depth")  # Options of a decoder.
RUN_WIDE = ("acceptance", "temperature")


def main() -> int:
    parser = make_parser("python scripts/sweep.py", __doc__)
    parser.allow_abbrev = False  # Flags of bench.run are passed on as they are.
    add = parser.add_argument
    add("--decoder", type=texts, default=["dynamic"], help="comma-separated; greedy is added")
    for name in (*OPTIONS, *RUN_WIDE):
        add(f"--{name}", type=texts, metavar="VALUES", help="comma-separated")
    add("--out", type=Path, required=True, help="folder of the runs, their table and figures")
    args, rest = parser.parse_known_args()
    # Imported late: it loads decoders, and so torch, which takes seconds.
    from measuring.sweeps import SOME_FAILED, sweep

    options = {name: getattr(args, name) for name in OPTIONS if getattr(args, name)}
    run_wide = {name: getattr(args, name) for name in RUN_WIDE if getattr(args, name)}
    status, folders = sweep(args.decoder, options, run_wide, args.out, rest)
    if status not in (0, SOME_FAILED):
        return status
    return report.main([*map(str, folders), "--out", str(args.out)]) or status


if __name__ == "__main__":
    exit_cleanly(main)
