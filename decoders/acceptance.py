"""The names and numbers of acceptance above temperature 0. The rules are in `decoders.accept`.

They have a file of their own because `--help` shows them, and should not wait for torch.
"""

from dataclasses import dataclass

ACCEPTANCES = ("lossless", "typical", "typical-sampled")


@dataclass(frozen=True)
class Typical:
    """Typical acceptance (Cai et al. 2024, section 2.3.1).

    A token is allowed where its probability exceeds min(epsilon, alpha * exp(-entropy)).
    """

    epsilon: float = 0.09
    alpha: float = 0.3
