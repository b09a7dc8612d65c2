"""How fast a step's products read their weights: each size, times a few rows, in several ways.

    python scripts/bench_products.py                   the demo model's products, on this machine
    python scripts/bench_products.py --device cuda --dtype float16 --rows 1,64 --compile \\
        --sizes 12288x4096,4096x4096,22016x4096,4096x11008,32000x4096
                                                       those of a 7B model of Llama's shape

    linear    F.linear
    columns   weight @ rows.T
    packed    oneDNN's, from a copy of the weight (CPU, float32)
    reduced   (weight * row).sum(-1) as one compiled kernel, for one row (with --compile)

decoders/engine/few_rows.py chooses among the first three by the number of rows. The ways take
turns. On CUDA they are replayed as graphs, so that the host's launches are not timed. Every number
is a median over rounds: in microseconds, and as the bytes of weights read per second / the bytes
per second that a plain copy moves.
"""

import sys

from bench.common.errors import exit_cleanly
from settings.command_line import parse_settings
from settings.measuring import ProductSettings
from settings.report_files import write_report


def main() -> None:
    settings = parse_settings("bench_products.py", __doc__, ProductSettings)
    # Imported late: torch takes seconds to load, and a wrong flag should be told at once.
    from bench.common.terminal import print_table
    from measuring.products import measure_products, table

    report = measure_products(settings, sys.argv)
    device, copied = report["environment"]["device"], report["copy_bytes_per_s"] / 1e9
    print(
        f"{device}, {settings.dtype}: a copy moves {copied:.1f} GB/s, reads and writes both counted"
    )
    print_table(table(report["rows"]))
    write_report(report, settings.out)


if __name__ == "__main__":
    exit_cleanly(main)
