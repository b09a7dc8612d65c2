"""Feed hostile files to the readers: each must return a valid value or raise a clear error.

    pip install -e '.[fuzz]'
    python scripts/fuzz.py turns --seconds 240 --corpus fuzz/turns

    turns         turns.jsonl of a run              run          run.json
    questions     a question set                    tree         a static tree's JSON
    answers       an answer file, any dialect       calibration  medusa_calibration.json
    judgments     a judge's file                    vocabulary   medusa_vocabulary.json

The fuzzer (atheris) is guided by coverage. Its mutator knows JSON, and puts odd values into valid
rows. It ends at the first exception that the reader does not document, prints it, and leaves
the input in a file beside the corpus. Every call adds to the corpus.
"""

from pathlib import Path

from bench.common.arguments import parser as make_parser
from bench.common.arguments import whole
from bench.common.errors import exit_cleanly

TARGETS = (
    "turns",
    "questions",
    "answers",
    "judgments",
    "tree",
    "calibration",
    "vocabulary",
    "run",
)


def main() -> None:
    parser = make_parser("python scripts/fuzz.py", __doc__)
    parser.add_argument("target", choices=TARGETS, help="what is read")
    parser.add_argument("--seconds", type=whole(1), default=60, help="how long")
    parser.add_argument("--seed", type=int, default=0, help="0: another one each time")
    parser.add_argument(
        "--corpus",
        type=Path,
        required=True,
        help="folder of inputs that reach something new; made if need be",
    )
    args = parser.parse_args()
    # Imported late: torch takes seconds to load, and a wrong flag should be told at once.
    from checking.fuzzing import fuzz

    fuzz(args.target, args.seconds, args.seed, args.corpus)


if __name__ == "__main__":
    exit_cleanly(main)
