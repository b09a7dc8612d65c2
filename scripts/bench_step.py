"""Time of a step by phase, for decoders and context lengths, with operations and waits counted.

    python scripts/bench_step.py                       the demo model on this machine
    python scripts/bench_step.py --model my-heads/medusa \\
        --decoder static,dynamic:nodes=64,dynamic:nodes=128 --out step.json
    python -m bench.report --phases step.json          a figure of it

The decoders take turns, round by round. So a machine that gets busy is busy for all of them. Every
number is a median.

    outside      everything but the base model's own forward
    operations   tensor operations, except views, which compute nothing
    waits        times that the host waits for the device
"""

import sys

from bench.common.errors import exit_cleanly
from settings.command_line import parse_settings
from settings.measuring import StepSettings
from settings.report_files import write_report


def main() -> None:
    settings = parse_settings("bench_step.py", __doc__, StepSettings)
    # Imported late: torch takes seconds to load, and a wrong flag should be told at once.
    from bench.common.terminal import print_table
    from measuring.steps import measure_steps, table

    report = measure_steps(settings, sys.argv)
    print_table(table(report["rows"]))
    write_report(report, settings.out)


if __name__ == "__main__":
    exit_cleanly(main)
