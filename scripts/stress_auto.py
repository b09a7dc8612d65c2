"""Decoders with nodes=auto beside busy loops, compared with greedy under the same load.

    python scripts/stress_auto.py                      the demo model, four loads, some 8 minutes
    python scripts/stress_auto.py --model smollm2 --limit 6 --max-new-tokens 64

    never       the machine is left alone
    first       busy for the first --seconds, from before step times are measured
    sometimes   busy for some seconds, quiet for some seconds, and so on
    always      busy all the time

Greedy and the other decoders take turns, answer by answer. A ratio is tokens per second over
greedy's, of the same turn. Medians over all turns, and over the later half of them, are printed and
written to --out after each load.

The exit status is 1 where a median is below --least, or an answer is not greedy's.
"""

import sys

from bench.common.errors import exit_cleanly
from settings.checking import StressSettings
from settings.command_line import parse_settings
from settings.report_files import write_report


def main() -> int:
    settings = parse_settings("stress_auto.py", __doc__, StressSettings)
    # Imported late: torch takes seconds to load, and a wrong flag should be told at once.
    from bench.common.terminal import print_table
    from checking.stress import faults, stress, table

    for report in stress(settings, sys.argv):
        print_table(table(report["rows"]))
        write_report(report, settings.out)
    found = faults(report["rows"], settings.least)
    for fault in found:
        print(f"error: {fault}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    exit_cleanly(main)
