"""What decides a run: one frozen configuration, checked before anything is loaded."""

import json
import math
from dataclasses import dataclass
from hashlib import sha256

from bench.common.errors import UserError
from bench.common.files import safe_name
from bench.inputs.chat import OWN
from decoders import registry
from decoders.accept import ACCEPTANCES, Typical
from decoders.decoder import Decoder

MOST_CHOICES = 10_000
# MT-Bench's temperature by category (FastChat's llm_judge/common.py), and of any other.
TEMPERATURES = {
    "writing": 0.7, "roleplay": 0.7, "extraction": 0.0, "math": 0.0, "coding": 0.0, "reasoning": 0.0,
    "stem": 0.1, "humanities": 0.1,
}  # fmt: skip
OTHER_TEMPERATURE = 0.7


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides what a run computes. A folder is resumed only with the same one."""

    decoders: tuple[str, ...] = ("dynamic",)
    model: str = "demo"
    questions: str = "sample"
    template: str | None = None  # None: the tokenizer's own
    temperature: float | None = None  # None: by category
    acceptance: str = "lossless"
    top_p: float = 1.0
    posterior_threshold: float = Typical.epsilon
    posterior_alpha: float = Typical.alpha
    nodes: int | str | None = (
        None  # or "auto". None, here and in the next three: the decoder's own default
    )
    topk: int | None = None
    depth: int | None = None
    tree: str | None = None
    max_new_tokens: int = 1024
    num_choices: int = 1
    seed: int = 0
    limit: int | None = None
    skip: int = 0  # leave out the first so many questions; `limit` counts the rest
    device: str = "auto"
    gpus: int | None = None  # with device "balanced": the first so many; None: all
    max_gpu_memory: str | None = None  # with device "balanced": of each GPU, for the weights
    dtype: str = "auto"
    load_in_8bit: bool = False
    load_in_4bit: bool = False
    trust_remote_code: bool = False
    static_shapes: bool | None = None  # None: on CUDA, where steps are then captured as graphs
    compile: bool = False  # fuse the small operations of the model's forward

    def __post_init__(self) -> None:
        if self.template == OWN:  # which is one configuration, said or not
            object.__setattr__(self, "template", None)

    def make_decoders(self) -> list[Decoder]:
        """The decoders, not yet bound to a model; UserError for a name, an option or a flag that does not fit."""
        shared = self._shared()
        try:
            if len(set(self.decoders)) < len(self.decoders) or not self.decoders:
                raise ValueError(
                    f"decoders must be one or more different names, got {', '.join(self.decoders)!r}"
                )
            made = [registry.make(spec, shared) for spec in self.decoders]
        except (ValueError, OSError) as error:
            raise UserError(str(error)) from error
        if self.acceptance != "lossless" and not any(decoder.drafts for decoder in made):
            raise UserError(
                f"--acceptance {self.acceptance} has no effect on {', '.join(self.decoders)}: nothing is drafted; leave it out"
            )
        names = [safe_name(spec) for spec in self.decoders]
        if len(set(names)) < len(names):
            raise UserError(
                f"{', '.join(self.decoders)} would share an answer file; rename a tree's file"
            )
        for name in shared:
            if not any(name in registry.open_options(spec) for spec in self.decoders):
                raise UserError(
                    f"--{name} has no effect on {', '.join(self.decoders)}; leave it out"
                )
        return made

    def _shared(self) -> dict[str, object]:
        """The options that were given for every decoder that has them."""
        shared = {"nodes": self.nodes, "topk": self.topk, "depth": self.depth, "tree": self.tree}
        return {name: value for name, value in shared.items() if value is not None}

    def remarks(self) -> list[str]:
        """What is worth a word before the run: a shared flag that is about some of the drafting decoders alone."""
        said = []
        drafting = [
            spec
            for spec, made in zip(self.decoders, self.make_decoders(), strict=True)
            if made.drafts
        ]
        for name, value in self._shared().items():
            without = [
                spec
                for spec in drafting
                if name not in registry.open_options(spec) and f":{name}=" not in spec
            ]
            if without:
                said.append(
                    f"--{name} {value} is not about {', '.join(without)}, which has no such option"
                )
        return said

    def tree_digests(self, decoders: list[Decoder]) -> dict[str, str]:
        """sha256 of the rank paths of every decoder that names a tree: a file may change under its name."""
        paths = {
            spec: getattr(decoder, "paths", None)
            for spec, decoder in zip(self.decoders, decoders, strict=True)
        }
        return {
            spec: sha256(json.dumps(each).encode()).hexdigest()
            for spec, each in paths.items()
            if each is not None
        }

    def plugin_digests(self, decoders: list[Decoder]) -> dict[str, str]:
        """sha256 of the file of every decoder that is not of this project, which no commit of it tells."""
        found = {}
        for spec, decoder in zip(self.decoders, decoders, strict=True):
            source = registry.source_of(decoder)
            if (
                source is not None
                and type(decoder).__module__.partition(".")[0] != registry.__package__
            ):
                found[spec] = sha256(source.read_bytes()).hexdigest()
        return found

    def check(self) -> None:
        """UserError for what is wrong with the numbers."""
        if self.temperature is not None and not (
            self.temperature == 0 or 1e-3 <= self.temperature < math.inf
        ):
            raise UserError(
                f"--temperature is {self.temperature}; expected auto, 0, or a number from 0.001 on"
            )
        if self.acceptance not in ACCEPTANCES:
            raise UserError(
                f"--acceptance is {self.acceptance!r}; expected {', '.join(ACCEPTANCES)}"
            )
        if not 0 < self.top_p <= 1:
            raise UserError(f"--top-p is {self.top_p}; expected a number above 0 and at most 1")
        for name in ("max_new_tokens", "num_choices"):
            if getattr(self, name) < 1:
                raise UserError(
                    f"--{name.replace('_', '-')} is {getattr(self, name)}; expected at least 1"
                )
        if self.num_choices > MOST_CHOICES:
            raise UserError(f"--num-choices is {self.num_choices}; expected at most {MOST_CHOICES}")
        if self.limit is not None and self.limit < 1:
            raise UserError(f"--limit is {self.limit}; expected at least 1")
        if self.skip < 0:
            raise UserError(f"--skip is {self.skip}; expected at least 0")
        for name in ("gpus", "max_gpu_memory"):
            if getattr(self, name) is not None and self.device != "balanced":
                raise UserError(
                    f"--{name.replace('_', '-')} has no effect on device {self.device!r}; it needs balanced"
                )
        if not (0 < self.posterior_threshold <= 1 and 0 < self.posterior_alpha < math.inf):
            raise UserError(
                "--posterior-threshold must be above 0 and at most 1, and --posterior-alpha above 0"
            )
        if self.temperature == 0 and (self.top_p < 1 or self.typical != Typical()):
            raise UserError(
                "--top-p, --posterior-threshold and --posterior-alpha have no effect at temperature 0"
            )
        if self.top_p < 1 and self.acceptance == "typical":
            raise UserError(
                "--top-p has no effect on typical acceptance; use lossless or typical-sampled, or leave it out"
            )
        if self.acceptance == "lossless" and self.typical != Typical():
            raise UserError(
                "--posterior-threshold and --posterior-alpha have no effect on lossless acceptance"
            )
        if self.load_in_8bit and self.load_in_4bit:
            raise UserError("--load-in-8bit and --load-in-4bit exclude each other")

    @property
    def typical(self) -> Typical:
        return Typical(self.posterior_threshold, self.posterior_alpha)

    def temperature_of(self, category: str) -> float:
        """What a question of this category is answered at."""
        return (
            TEMPERATURES.get(category, OTHER_TEMPERATURE)
            if self.temperature is None
            else self.temperature
        )
