"""What is promised of a GPU, measured on one, in less than 8 minutes.

    python scripts/check_gpu.py --out gpu

    graphs     steps that are captured as CUDA graphs give the same tokens (needs the test extra)
    kernels    our Triton kernels compute what plain PyTorch does (needs the test extra)
    shape      a model of Vicuna-7B's shape: greedy's bytes of weights per second over those of a
               plain copy, and a 64-node dynamic step over a greedy one; what each change to the
               model brings, our kernels among them; all peers beside them
    products   how fast its products read their weights
    auto       --nodes auto over the best fixed size, on each of --model

--out gets the output of every part, and its files. Runs of an earlier check must not be there. The
exit status is 1 where a part fails, or a number is not what is promised.
"""

from bench.common.errors import exit_cleanly
from settings.checking import GpuSettings
from settings.command_line import parse_settings


def main() -> int:
    settings = parse_settings("check_gpu.py", __doc__, GpuSettings)
    # Imported late: a wrong flag should be told at once.
    from bench.common.terminal import print_table
    from checking.gpu import check_gpu, table

    checks = check_gpu(settings)
    print_table(table(checks))
    return 0 if all(check.passed for check in checks) else 1


if __name__ == "__main__":
    exit_cleanly(main)
