"""Put a run into results/reference: its rows, packed, and its run.json.

    python scripts/publish_run.py results/smollm2 smollm2_mt_bench
    python scripts/check_results.py --write

The second command writes tables.md. The texts of a downloaded question set are left out, as are the
names of this machine's folders. A run that is not finished, or of a checkout with changes that were
not committed, is refused. So is one whose rows call a decoder by an absolute path.
"""

from pathlib import Path

from bench.common.arguments import parser as make_parser
from bench.common.errors import exit_cleanly


def main() -> None:
    parser = make_parser("python scripts/publish_run.py", __doc__)
    parser.add_argument("run", type=Path, help="folder of the run")
    parser.add_argument("name", help="its name in results/reference")
    args = parser.parse_args()
    # Imported late: --help does not wait for pydantic.
    from checking.publishing import publish
    from checking.results import PUBLISHED, ROOT

    folder = ROOT / PUBLISHED / args.name
    publish(args.run, folder)
    print(folder)


if __name__ == "__main__":
    exit_cleanly(main)
