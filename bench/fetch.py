"""Download the published question sets, and list them.

    python -m bench.fetch                 which sets there are, and which are here
    python -m bench.fetch mt_bench        questions, reference answers and judge prompts of MT-Bench
    python -m bench.run --questions mt_bench    fetches what is not here yet

Files lie in the cache folder of the user, or in $MEDUSA_BENCH_CACHE. They come from GitHub, or from
$MEDUSA_BENCH_MIRROR: a base URL (https://, http:// or file://) below which files lie as
<repository>/<commit>/<path>. Every file is checked against its sha256 whenever it is used. A file
that does not match is never used.
"""

from bench.common import arguments
from bench.common.errors import exit_cleanly
from bench.inputs.published_sets import SETS, cache_folder, check_name, fetched


def main() -> None:
    parser = arguments.parser("python -m bench.fetch", __doc__)
    parser.add_argument("set", nargs="*", help=f"{', '.join(SETS)} (default: list them)")
    names = parser.parse_args().set
    for name in names:
        check_name(name)
    for name in names:
        for file in SETS[name]:
            print(fetched(name, file))
    if not names:
        print_sets()


def print_sets() -> None:
    """Every file of every set: where it comes from, and whether it is here."""
    from rich.table import Table  # Only this table needs rich.

    from bench.common.terminal import print_table

    table = Table(title=f"question sets, cached in {cache_folder()}", title_justify="left")
    for column in ("set", "file", "from", "here"):
        table.add_column(column, overflow="fold")
    for name, files in SETS.items():
        for file, remote in files.items():
            here = "yes" if fetched(name, file, download=False) else "no"
            table.add_row(name, file, f"{remote.repository}@{remote.commit[:10]}", here)
    print_table(table)


if __name__ == "__main__":
    exit_cleanly(main)
