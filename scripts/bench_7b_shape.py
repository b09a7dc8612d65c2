"""Step times of a model of Vicuna-7B's shape in half precision, with random weights.

    python scripts/bench_7b_shape.py --out results/7b-shape.json
                                                     one GPU with 20 GB; nothing is downloaded
    python scripts/bench_7b_shape.py --hidden 64 --layers 2 --device cpu --dtype float32 --rounds 1
                                                     does it run?
    python scripts/bench_7b_shape.py --compile --kernels
                                                     and which kernels a step's time goes to
    python scripts/bench_7b_shape.py --compile --without-each
                                                     and what each change to the model brings

The time of a step does not depend on the values of the weights. Reported, from rounds in which the
decoders take turns:

    the bandwidth of a plain copy, and of greedy decoding (bytes of weights that a step reads / step
    time)
    the time of a greedy step, with graphs and without; of tree steps by size / a greedy step
    the time of a step outside the model's forward and the heads': propose, accept, commit, the host
    transformers' `generate` / our greedy decoding
"""

import sys

from bench.common.errors import exit_cleanly
from settings.command_line import parse_settings
from settings.measuring import ShapeSettings
from settings.report_files import write_report


def main() -> None:
    settings = parse_settings("bench_7b_shape.py", __doc__, ShapeSettings)
    settings.check()
    # Imported late: torch takes seconds to load, and a wrong flag should be told at once.
    from measuring.shape_steps import lines_of, measure_shape

    report = measure_shape(settings, sys.argv)
    print("\n".join(lines_of(report)))
    write_report(report, settings.out)


if __name__ == "__main__":
    exit_cleanly(main)
