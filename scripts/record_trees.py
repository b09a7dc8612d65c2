"""Record the trees of some answers of a finished run, so that report.html can step through them.

    python scripts/record_trees.py results/<run> --questions 81,82
    python scripts/record_trees.py results/<run> --questions 81 --decoder dynamic

A timed run never records its trees. Here the answers are decoded a second time, untimed, with the
same model, prompts and seeds. They are kept only where tokens and steps come out as in the run.

Writes <run>/trees.jsonl, and makes the report again. Trees of other answers that the file already
holds are kept.
"""

import sys
from pathlib import Path

from bench.common.arguments import parser as make_parser
from bench.common.arguments import texts
from bench.common.errors import exit_cleanly


def main() -> int:
    parser = make_parser("python scripts/record_trees.py", __doc__)
    parser.add_argument("run", type=Path, help="folder that bench.run wrote")
    parser.add_argument(
        "--questions", type=texts, required=True, help="question ids, such as 81,82"
    )
    parser.add_argument(
        "--decoder",
        type=texts,
        help="comma-separated, as in the run (default: all of the run that draft trees)",
    )
    parser.add_argument(
        "--trust-remote-code",
        action="store_true",
        help="execute Python files that the run's model brings along",
    )
    args = parser.parse_args()
    # Imported late: torch takes seconds to load, and a wrong flag should be told at once.
    from bench.reporting.comparison import derive
    from trees.recording import record_trees

    recorded = record_trees(args.run, args.questions, args.decoder or None, args.trust_remote_code)
    for turn in recorded.different:
        where = f"question {turn.question_id}, {turn.decoder}, turn {turn.turn}"
        print(f"not recorded: {where}", file=sys.stderr)
    derive(args.run)
    print(f"{args.run}: trees.jsonl has {recorded.answers} answers, report.html shows them")
    if recorded.different:
        print(
            f"error: {len(recorded.different)} answers are left out: they did not come out as in "
            "the run, as may happen in half precision, or their decoder failed",
            file=sys.stderr,
        )
    return 1 if recorded.different else 0


if __name__ == "__main__":
    exit_cleanly(main)
