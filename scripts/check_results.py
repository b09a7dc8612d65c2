"""Whether the published numbers are those of the published rows.

    python scripts/check_results.py            names every number that differs
    python scripts/check_results.py --write    writes the right ones

A folder of results/reference with turns.jsonl.gz and run.json is a published run. Its tables.md is
its report in Markdown. A page may show columns of the report's first table, with the heading and
the rows that it likes:

    <!-- numbers: results/reference/demo_sample -->

    | decoder | tokens/inference |
    | --- | ---: |
    | greedy | 1.000 |

The exit status is 1 where a number differs.
"""

from bench.common.arguments import parser as make_parser
from bench.common.errors import exit_cleanly


def main() -> int:
    parser = make_parser("python scripts/check_results.py", __doc__)
    parser.add_argument("--write", action="store_true", help="write the right numbers")
    args = parser.parse_args()
    # Imported late: --help does not wait for pandas.
    from bench.common.files import write_atomically
    from checking.results import ROOT, differences, expected_texts

    expected = expected_texts(ROOT)
    if args.write:
        for path, text in expected.items():
            write_atomically(path, text)
    found = differences(ROOT, expected)
    print("\n".join(found) or f"{len(expected)} files agree with their rows")
    return 1 if found else 0


if __name__ == "__main__":
    exit_cleanly(main)
