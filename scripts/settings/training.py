"""The settings of the training and fitting scripts."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.common.arguments import positive, temperatures, whole
from bench.common.errors import UserError
from bench.common.flags import REQUIRED, flag, flag_name
from decoders.spec import MOST_NODES
from settings.devices import one_device

KINDS = ("medusa", "hydra", "eagle")
FORMATS = ("medusa", "vllm")
SAVE_DTYPES = ("float16", "bfloat16", "float32")
SPECIAL_TOKENS = ("<|bos|>", "<|end|>", "<|user|>", "<|assistant|>")  # Of the demo's tokenizer.
LEAST_VOCAB = 256 + len(SPECIAL_TOKENS)  # Every byte is a token.
MOST_VOCAB = 1 << 16  # A packed token takes 2 bytes.
DEMO_ATTENTION_HEADS = 4
HIDDEN_STEP = 2 * DEMO_ATTENTION_HEADS  # Rotary positions need attention heads of an even size.


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """The model, the text, and how the model is loaded."""

    model: str = flag(REQUIRED, "demo, smollm2, a folder, a .gguf file, or a hub id")
    device: str
    dtype: str
    trust_remote_code: bool
    corpus: Path = flag(REQUIRED, "conversations: chat JSONL or ShareGPT (.gz allowed)", parse=Path)


@dataclass(frozen=True, kw_only=True)
class HeadsSettings(ModelSettings):
    """Training heads."""

    template: str | None
    kind: str = flag("medusa", "what is trained", choices=KINDS)
    corpus: Path | None = flag(
        None, "chat JSONL to learn from, or whose prompts --distill takes (.gz allowed)", parse=Path
    )
    answers: Path | None = flag(
        None,
        "in place of --corpus: the model's own answers, made before. JSON lines of [token ids, "
        "where the answer begins] (.gz allowed)",
        parse=Path,
    )
    out: Path = flag(REQUIRED, "folder of the result and of checkpoints", parse=Path)
    heads: int = flag(4, "heads; eagle has one", parse=whole(1))
    layers: int = flag(1, "residual blocks of a head", parse=whole(1))
    share_projection: bool = flag(
        False, "end all heads in the model's own output projection, which stays as it is"
    )
    tokens: float = flag(4e6, "answer tokens to train on, all sessions together", parse=positive)
    minutes: float | None = flag(
        None, "end this session after so many minutes, fully decayed", parse=positive
    )
    examples: int = flag(20000, "the first so many answers of the corpus", parse=whole(1))
    distill: int = flag(0, "answers of the model itself to learn from", parse=whole(0))
    temperatures: Sequence[float] = flag(
        (0.0, 0.7), "of the model's own answers, taken in turn", parse=temperatures
    )
    distill_tokens: int = flag(256, "length of the model's own answers at most", parse=whole(1))
    distill_batch: int = flag(64, "own answers that are generated at once", parse=whole(1))
    batch_tokens: int = flag(8192, "tokens of a batch, padding included", parse=whole(1))
    sampled: int | None = flag(
        None,
        "tokens of the vocabulary that the loss of a batch looks at: the frequent ones, and a "
        "random draw of the others. Needs --share-projection or --kind eagle (default: all)",
        parse=whole(8),
    )
    states: Path | None = flag(
        None,
        "folder that keeps the model's hidden states in 2 bytes a number, for further passes over "
        "the answers and for other kinds",
        parse=Path,
    )
    max_length: int = flag(
        1024,
        "longer examples are cut; a prompt that leaves no room is left out",
        parse=whole(1),
    )
    lr: float = flag(1e-3, "learning rate", parse=positive)
    decay: float = flag(0.8, "head k's loss has the weight decay^k", parse=positive)
    merge: bool = flag(False, "write one merged Medusa-2 checkpoint")
    format: str = flag("medusa", "names of the tensors in the result", choices=FORMATS)
    save_dtype: str = flag("float16", "of the tensors in the result", choices=SAVE_DTYPES)
    seed: int = flag(0, "of samples and batches", parse=int)


@dataclass(frozen=True, kw_only=True)
class FittingSettings(ModelSettings):
    """Fitting a file to a model, on held-out text."""

    template: str | None
    corpus: Path = flag(REQUIRED, "held-out chat JSONL (.gz allowed)", parse=Path)
    out: Path = flag(REQUIRED, "folder that the file is written to", parse=Path)
    prompts: int = flag(512, "prompts of the corpus that the model answers", parse=whole(1))
    new_tokens: int = flag(256, "length of an answer at most", parse=whole(1))


def _nodes(default: int, help: str) -> int:
    """A field that is the flag --nodes."""
    return flag(
        default,
        help,
        parse=whole(2),
        accepts=lambda value: value <= MOST_NODES,
        expected=f"at most {MOST_NODES}",
    )


@dataclass(frozen=True, kw_only=True)
class TreeSearchSettings(FittingSettings):
    """Searching a static tree."""

    batch: int = flag(64, "answers that are generated at once", parse=whole(1))
    topk: int = flag(32, "guesses of each head that paths may take", parse=whole(1))
    nodes: int = _nodes(256, "nodes of the largest tree")


@dataclass(frozen=True, kw_only=True)
class VocabularySettings(FittingSettings):
    """Counting frequent tokens."""

    size: int | None = flag(
        None, "tokens to keep (default: a quarter of the vocabulary)", parse=whole(1)
    )
    batch: int = flag(64, "answers that are generated at once", parse=whole(1))


@dataclass(frozen=True, kw_only=True)
class CalibrationSettings(FittingSettings):
    """Fitting the weights of `conditional`."""

    prompts: int = flag(256, "prompts of the corpus that the model answers", parse=whole(2))
    new_tokens: int = flag(256, "length of an answer at most", parse=whole(8))
    topk: int = flag(32, "guesses of each head that are candidates", parse=whole(1))
    nodes: int = _nodes(64, "nodes of the trees that measure the fit")


@dataclass(frozen=True, kw_only=True)
class PerplexitySettings(ModelSettings):
    """Measuring the loss on held-out text."""

    limit: int | None = flag(None, "only the first so many conversations", parse=whole(1))


@dataclass(frozen=True, kw_only=True)
class DemoSettings:
    """Training the demo's tokenizer and base model."""

    corpus: Path = flag(REQUIRED, "chat JSONL to train on (.gz allowed)", parse=Path)
    heldout: Path = flag(REQUIRED, "chat JSONL for the held-out loss (.gz allowed)", parse=Path)
    out: Path = flag(REQUIRED, "work folder: checkpoints, caches and the result", parse=Path)
    tokens: float = flag(24e6, "tokens to train on, all sessions together", parse=positive)
    minutes: float | None = flag(
        None, "end this session after so many minutes, fully decayed", parse=positive
    )
    vocab: int = flag(
        4096,
        "tokens of the vocabulary",
        parse=whole(LEAST_VOCAB),
        accepts=lambda value: value <= MOST_VOCAB,
        expected=f"at most {MOST_VOCAB}",
    )
    layers: int = flag(6, "layers of the model", parse=whole(1))
    hidden: int = flag(
        256,
        f"size of a hidden state, a multiple of {HIDDEN_STEP}",
        parse=whole(1),
        accepts=lambda value: value % HIDDEN_STEP == 0,
        expected=f"a multiple of {HIDDEN_STEP}: {DEMO_ATTENTION_HEADS} attention heads of an even "
        "size",
    )
    context: int = flag(2048, "max_position_embeddings of the model", parse=whole(2))
    seq: int = flag(1024, "tokens of a row; the last tenth trains on --context", parse=whole(2))
    batch_tokens: int = flag(
        8192, "tokens of a batch, a multiple of --seq and --context", parse=whole(2)
    )
    lr: float = flag(3e-3, "learning rate", parse=positive)
    seed: int = flag(0, "of weights and batches", parse=whole(0))
    device: str = one_device("auto")
    no_compile: bool = flag(False, "skip torch.compile (about 0.6x the speed)")

    def check(self) -> None:
        """UserError where a batch is no whole number of rows."""
        for name in ("seq", "context"):
            length = getattr(self, name)
            if self.batch_tokens % length:
                raise UserError(
                    f"--batch-tokens {self.batch_tokens} is not a multiple of {flag_name(name)} "
                    f"{length}"
                )


@dataclass(frozen=True, kw_only=True)
class LoopsSettings:
    """Teaching a model not to loop."""

    model: str = flag(REQUIRED, "folder of the model to begin with")
    corpus: Path = flag(REQUIRED, "chat JSONL (.gz allowed)", parse=Path)
    out: Path = flag(REQUIRED, "folder of the result and of checkpoints", parse=Path)
    updates: int = flag(80, "updates, all sessions together", parse=whole(1))
    batch: int = flag(24, "prompts answered in an update", parse=whole(1))
    new_tokens: int = flag(192, "length of an answer at most", parse=whole(1))
    max_prompt: int = flag(192, "longer prompts are left out", parse=whole(1))
    max_length: int = flag(384, "longer conversations of the corpus are cut", parse=whole(1))
    ngram: int = flag(4, "tokens that must repeat to count as a repetition", parse=whole(1))
    weight: float = flag(0.5, "weight of the unlikelihood in the loss", parse=positive)
    lr: float = flag(3e-4, "learning rate", parse=positive)
    device: str = one_device("auto")
