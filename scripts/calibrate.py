"""Fit the weights by which `conditional` mixes heads and successors, on held-out text.

    python scripts/calibrate.py --model my-heads/medusa --template vicuna_v1.1 \\
        --corpus heldout.jsonl --out my-heads/medusa

It takes minutes. The model answers `--prompts` of the corpus' prompts greedily, with the decoder
itself. At every step, for every depth along the model's actual answer, the candidates are recorded:
the head's log probabilities, the successors known at that moment, and which candidate was right.
The weights are fitted by maximum likelihood on every other prompt. The remaining prompts measure
the improvement. decoders/conditional/calibration.py has the formula.

Writes `medusa_calibration.json`, which `conditional` finds beside the model, and `reliability.png`:
how often drafted nodes are accepted against the probability that the decoder gave them. `--nodes
auto` relies on these. A calibration that is in `--out` already, and is better on the remaining
prompts, is not overwritten.
"""

from bench.common.errors import exit_cleanly
from settings.command_line import parse_settings
from settings.training import CalibrationSettings


def main() -> None:
    settings = parse_settings("calibrate.py", __doc__, CalibrationSettings)
    # Imported late: torch takes seconds to load, and a wrong flag should be told at once.
    from training.calibration_fit import FILE, calibrate

    found = calibrate(settings)
    print(f"{found.fitted_steps:,} steps fitted, {found.judged_steps:,} others judged")
    for name, judged in (("before", found.before), ("after", found.after)):
        accepted, predicted = judged.is_accepted.float().mean(), judged.predicted.mean()
        print(
            f"{name:6}: {judged.nats:.4f} nats a covered token (one that is among the candidates), "
            f"{judged.tokens_per_inference:.3f} "
            f"tokens/inference with {settings.nodes} nodes; nodes accepted {accepted:.4f} of the "
            f"time, predicted {predicted:.4f}"
        )
    file = settings.out / FILE
    if found.kept is None:
        print(f"{file}, {found.figure}")
    else:
        print(
            f"{file} stays as it was: {found.kept:.4f} nats a token on the prompts that were not "
            f"fitted, and the new fit has {found.after.nats:.4f}. Fit on more --prompts, or give "
            "another --out"
        )


if __name__ == "__main__":
    exit_cleanly(main)
