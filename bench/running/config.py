"""The configuration of a run. It is frozen, and its fields are the flags of `bench.run`."""

import argparse
import math
from dataclasses import dataclass

from bench.common.errors import UserError
from bench.common.files import safe_name
from bench.common.flags import check_flags, flag, flag_name
from bench.inputs.published_models import MODELS
from bench.inputs.published_sets import SETS
from bench.inputs.questions import normalised
from bench.inputs.spelling import check_device_spelling, check_model_spelling
from bench.inputs.templates import OWN, check_template
from decoders import registry
from decoders.acceptance import ACCEPTANCES, Typical
from decoders.spec import AUTO, BASELINE, SHARED_OPTIONS, Spec

DTYPES = ("auto", "float32", "float16", "bfloat16")
MOST_CHOICES = 10_000
LEAST_TEMPERATURE = 1e-3  # Unless it is 0. Logits divided by a smaller one may overflow.
# MT-Bench's temperature by category (FastChat's llm_judge/common.py).
TEMPERATURES = {
    "writing": 0.7, "roleplay": 0.7, "extraction": 0.0, "math": 0.0, "coding": 0.0,
    "reasoning": 0.0, "stem": 0.1, "humanities": 0.1,
}  # fmt: skip
OTHER_TEMPERATURE = 0.7


def parse_nodes(text: str) -> int | str:
    try:
        return text if text == AUTO else int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor {AUTO}") from None


def parse_temperature(text: str) -> float | None:
    """The type of --temperature: a number, or None for "auto"."""
    try:
        return None if text == "auto" else float(text)
    except ValueError:
        raise UserError(f"--temperature is {text!r}; expected {_ALLOWED_TEMPERATURE}") from None


_ALLOWED_TEMPERATURE = f"auto, 0, or a number from {LEAST_TEMPERATURE} on"


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides what a run computes. A folder is resumed only with the same one.

    None stands for a flag that was not given.
    """

    decoders: tuple[str, ...] = ("dynamic",)  # Specs.
    model: str = flag("demo", f"demo, {', '.join(MODELS)}, a folder, a .gguf file, or a hub id")
    questions: str = flag(
        "sample", f"sample, {', '.join(SETS)}, or a .jsonl file in MT-Bench's format"
    )
    template: str | None = flag(
        None,
        f"a FastChat conversation name, or {OWN}: the tokenizer's own (default: {OWN})",
    )
    temperature: float | None = flag(
        None,
        "a number, or auto: MT-Bench's, by category (default: auto)",
        parse=parse_temperature,
        accepts=lambda value: value == 0 or LEAST_TEMPERATURE <= value < math.inf,
        expected=_ALLOWED_TEMPERATURE,
    )
    acceptance: str = flag(
        "lossless",
        f"above temperature 0: {', '.join(ACCEPTANCES)}; at 0, tokens are always greedy's, up to "
        "float32 ties",
        choices=ACCEPTANCES,
    )
    top_p: float = flag(
        1.0,
        "sample from the nucleus of this mass; 1 is everything",
        parse=float,
        accepts=lambda value: 0 < value <= 1,
        expected="a number above 0 and at most 1",
    )
    posterior_threshold: float = flag(
        Typical.epsilon,
        "epsilon of typical acceptance",
        parse=float,
        accepts=lambda value: 0 < value <= 1,
        expected="a number above 0 and at most 1",
    )
    posterior_alpha: float = flag(
        Typical.alpha,
        "alpha of typical acceptance",
        parse=float,
        accepts=lambda value: 0 < value < math.inf,
        expected="a number above 0",
    )
    nodes: int | str | None = flag(
        None,
        f"nodes of the tree, root included, or {AUTO}: as many as pay on this machine "
        "(default: the decoder's own)",
        parse=parse_nodes,
    )
    topk: int | None = flag(
        None, "guesses taken from each head (default: the decoder's own)", parse=int
    )
    depth: int | None = flag(
        None, "levels of the tree below the root (default: the decoder's own)", parse=int
    )
    tree: str | None = flag(
        None,
        "static's tree: a published name, a JSON file, or own (default: own where there is one)",
    )
    step_times: str | None = flag(
        None,
        f"for nodes={AUTO}: a run's folder or run.json, whose times are used throughout (default: "
        "measured at the start, corrected while decoding)",
    )
    max_new_tokens: int = flag(1024, "tokens a turn at most", parse=int, least=1)
    num_choices: int = flag(
        1,
        "answers to each question",
        parse=int,
        accepts=lambda value: 1 <= value <= MOST_CHOICES,
        expected=f"at least 1 and at most {MOST_CHOICES}",
    )
    seed: int = flag(
        0,
        "seed of all samples",
        parse=int,
        accepts=lambda value: abs(value) < 1 << 63,
        expected="an integer of at most 63 bits",
    )
    limit: int | None = flag(None, "only the first so many questions", parse=int, least=1)
    skip: int = flag(
        0, "leave out the first so many questions; --limit counts the rest", parse=int, least=0
    )
    device: str = flag(
        "auto", "auto, cpu, cuda, cuda:N, mps, or balanced: one model over several GPUs"
    )
    gpus: int | None = flag(
        None, "with balanced: spread over the first so many GPUs (default: all)", parse=int
    )
    max_gpu_memory: str | None = flag(
        None, "with balanced: memory of each GPU for weights, such as 20GiB"
    )
    dtype: str = flag(
        "auto", "auto is the checkpoint's own on an accelerator, float32 on a CPU", choices=DTYPES
    )
    load_in_8bit: bool = flag(False, "quantise to 8 bits (CUDA, bitsandbytes)")
    load_in_4bit: bool = flag(False, "quantise to 4 bits (CUDA, bitsandbytes)")
    trust_remote_code: bool = flag(
        False, "execute Python files that the model, or a draft model, brings along"
    )
    static_shapes: bool | None = flag(
        None,
        "steps of fixed shapes, which CUDA captures as graphs (default: on CUDA, with one GPU "
        "and not in 8 bits)",
    )
    compile: bool = flag(
        False,
        "fuse small operations, and use our kernels on CUDA; pays in long GPU runs only",
    )

    def __post_init__(self) -> None:
        if self.template == OWN:  # The default, given or not, must be the same configuration.
            object.__setattr__(self, "template", None)

    @property
    def shared_options(self) -> dict[str, object]:
        """The options that were given for every decoder that has them."""
        values = {name: getattr(self, name) for name in SHARED_OPTIONS}
        return {name: value for name, value in values.items() if value is not None}

    @property
    def labels(self) -> tuple[str, ...]:
        """What tables and files call the decoders. ValueError where a spec cannot be parsed."""
        return tuple(Spec.parse(text).label for text in self.decoders)

    @property
    def greedy(self) -> str | None:
        """The label of the first greedy decoder. None: there is none."""
        specs = map(Spec.parse, self.decoders)
        return next((spec.label for spec in specs if spec.name == BASELINE), None)

    @property
    def typical(self) -> Typical:
        return Typical(self.posterior_threshold, self.posterior_alpha)

    def temperature_of(self, category: str) -> float:
        """The temperature for questions of this category."""
        if self.temperature is not None:
            return self.temperature
        return TEMPERATURES.get(normalised(category), OTHER_TEMPERATURE)

    def check(self) -> None:
        """UserError for a flag whose value is not allowed, or that has no effect."""
        check_flags(self)
        check_model_spelling(self.model)
        check_device_spelling(self.device)
        for name in ("gpus", "max_gpu_memory"):
            if getattr(self, name) is not None and self.device != "balanced":
                raise UserError(
                    f"{flag_name(name)} has no effect on device {self.device!r}; it needs balanced"
                )
        has_own_typical = self.typical != Typical()
        if self.temperature == 0 and (self.top_p < 1 or has_own_typical):
            raise UserError(
                "--top-p, --posterior-threshold and --posterior-alpha have no effect at "
                "temperature 0"
            )
        if self.top_p < 1 and self.acceptance == "typical":
            raise UserError(
                "--top-p has no effect on typical acceptance; use lossless or typical-sampled, or "
                "leave it out"
            )
        if self.acceptance == "lossless" and has_own_typical:
            raise UserError(
                "--posterior-threshold and --posterior-alpha have no effect on lossless acceptance"
            )
        if self.load_in_8bit and self.load_in_4bit:
            raise UserError("--load-in-8bit and --load-in-4bit exclude each other")
        check_template(self.template)
        self.check_decoders()

    def check_decoders(self) -> None:
        """UserError for decoders or options that there are not, or that share a name.

        Nothing is imported, so that a typing error is told at once.
        """
        listed = ", ".join(self.decoders)
        try:
            for text in self.decoders:
                spec = Spec.parse(text)
                registry.check(spec)
                if spec.own_label in registry.names():
                    raise ValueError(
                        f"decoder {text!r}: the label {spec.own_label!r} is the name of a decoder; "
                        "choose another one"
                    )
        except ValueError as error:
            raise UserError(str(error)) from error
        labels = self.labels
        if len(set(labels)) < len(labels) or not labels:
            raise UserError(f"decoders must be one or more different names, got {listed!r}")
        if len(set(map(safe_name, labels))) < len(labels):
            raise UserError(
                f"{listed} would share an answer file; give one a label, as in a={labels[-1]}"
            )
