"""Kill runs with SIGKILL at random instants, resume them, and compare each with a quiet one.

    python scripts/kill_and_resume.py --runs 100
    python scripts/kill_and_resume.py --runs 20 -- --model my-heads/medusa \\
        --decoder greedy,static --max-new-tokens 64

The flags after -- are those of bench.run. Each run is killed 1 to 3 times, and then left alone.
The instants are drawn evenly from the time that an undisturbed run takes. Checked are:

    after each kill   no row that was whole is lost or changed by the resumed run
    at the end        turns.jsonl, the answer files, summary.csv and run.json are byte-equal to the
                      undisturbed run's, apart from times and what is made of them; no turn stands
                      twice
"""

from bench.common.arguments import parser as make_parser
from bench.common.arguments import whole
from bench.common.errors import exit_cleanly

FLAGS = "--decoder greedy,dynamic:nodes=8 --limit 6 --max-new-tokens 16 --device cpu"


def main() -> None:
    parser = make_parser("python scripts/kill_and_resume.py", __doc__)
    parser.add_argument("--runs", type=whole(1), default=100, help="runs that are killed")
    parser.add_argument("--seed", type=int, default=0, help="of the instants")
    parser.add_argument("flags", nargs="*", help=f"flags of bench.run, after -- (default: {FLAGS})")
    args = parser.parse_args()
    # Imported late: torch takes seconds to load, and a wrong flag should be told at once.
    from checking.killing import kill_runs

    found = kill_runs(args.flags or FLAGS.split(), args.runs, args.seed)
    print(
        f"{args.runs} runs of {found.turns} turns, killed {found.kills} times, {found.midway} of "
        f"them between the first row and the last; {found.torn} left a torn row. None lost or "
        "repeated a turn, and all ended with the files of an undisturbed run"
    )


if __name__ == "__main__":
    exit_cleanly(main)
