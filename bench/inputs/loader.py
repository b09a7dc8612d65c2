"""The one place that turns a name into a ready model.

    demo                 the embedded demo model
    smollm2              a small real chat model (`bench.inputs.published_models`)
    a folder or hub id   of a checkpoint in one of the layouts of `bench.inputs.checkpoints`: with
                         Medusa heads, or any causal LM without them
    model.gguf           a GGUF file, or a folder that holds one (`bench.inputs.gguf_files`)

A checkpoint cannot execute code. Pickles are read with weights_only=True, and Python files that a
checkpoint brings along run only where `trust_remote_code` is given.
"""

from dataclasses import dataclass

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    GenerationConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from bench.common.errors import UserError
from bench.common.files import shown
from bench.common.strangers import message_of
from bench.common.waiting import patience
from bench.inputs.bounds import check_chat_template, check_tokenizer
from bench.inputs.checkpoint_checks import (
    check_config,
    check_tensors,
    check_tokenizer_exists,
    warnings_about_unused_weights,
    warnings_about_weights,
)
from bench.inputs.checkpoints import (
    file_of_heads,
    read_json,
    read_merged_heads,
    read_separate_heads,
    short_name,
)
from bench.inputs.devices import check_device
from bench.inputs.gguf_files import GGUF, load_gguf
from bench.inputs.gguf_metadata import Metadata
from bench.inputs.head_layouts import to_published
from bench.inputs.identity import contents_of
from bench.inputs.load_errors import readable_errors
from bench.inputs.locations import Locations, locate
from bench.inputs.model_warnings import warnings_about
from bench.inputs.spelling import BALANCED
from decoders import registry
from decoders.engine.engine import Engine
from decoders.model.heads import MedusaHeads
from decoders.model.model import UnsupportedModel
from decoders.step import HasStop, Stop

ATTENTION = ("sdpa", "eager")  # Those whose masks we know how to make.


@dataclass(frozen=True, eq=False)
class Loaded:
    """A model that is ready to decode, with its tokenizer and its name."""

    model: Engine
    name: str  # Short, for file names and tables.
    where: str  # The folder or hub id of the checkpoint. Decoders' own files are there, too.
    base: str  # The folder, .gguf file or hub id of the language model alone.
    # Digests or commits of its files, and of the base model's files if these are elsewhere.
    identity: str  # Made from the name, the size and both ends of each file: quick.
    contents: str  # Made from whole files.
    eos: frozenset[int]  # Token ids that end an answer.
    # The checkpoint's own. `model.lm` has another one, which asks for plain greedy decoding.
    generation_config: GenerationConfig | None = None
    warnings: tuple[str, ...] = ()  # What a user should know about the model.
    # Whether Python files of the checkpoint may be executed. It holds for draft models, too.
    trust_remote_code: bool = False
    # Whether a text holds a stop string of the template. None: no chat was given, or it has none.
    has_stop: HasStop | None = None

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer of the model."""
        return self.model.tokenizer

    def stop(self, max_tokens: int) -> Stop:
        """When a turn of at most `max_tokens` tokens ends."""
        return Stop(self.eos, max_tokens, self.has_stop)


@dataclass(frozen=True)
class _LoadOptions:
    """How the weights of a language model are loaded."""

    device: str
    dtype: str
    load_in_8bit: bool
    load_in_4bit: bool
    max_memory: dict[int, int | str] | None
    trust_remote_code: bool


def load(
    name: str,
    device: str = "auto",
    dtype: str = "auto",
    load_in_8bit: bool = False,
    load_in_4bit: bool = False,
    max_memory: dict[int, int | str] | None = None,
    trust_remote_code: bool = False,
    compile: bool = False,
) -> Loaded:
    """Load a model by name. UserError says what does not fit.

    device: "auto" (an accelerator where there is one), "cpu", "cuda", "cuda:1", "mps", or
        "balanced": spread over several GPUs.
    dtype: "auto" is the checkpoint's own on an accelerator, and float32 on the CPU.
    max_memory: with "balanced", each GPU's memory for weights. GPUs not in it hold nothing.
    trust_remote_code: whether the model's and the tokenizer's own Python files may be executed.
    compile: whether the small operations of the forward are fused, which takes seconds at first. On
        CUDA our own kernels are used as well.
    """
    device = check_device(device, load_in_8bit or load_in_4bit)
    options = _LoadOptions(device, dtype, load_in_8bit, load_in_4bit, max_memory, trust_remote_code)
    with readable_errors(repr(name)):
        located = locate(name)
    is_elsewhere = located.base != located.where
    what = f"{located.base!r}, the base model of {name!r}," if is_elsewhere else repr(name)
    with readable_errors(what), patience(f"loading model {name!r}"):
        if located.gguf is not None:
            lm, tokenizer = _load_gguf(located.gguf, options)
            merged_names = set()
        else:
            try:
                _check_files(located.base)
            except UserError as error:
                if not is_elsewhere:
                    raise
                raise UserError(f"{what} cannot be used: {error}") from error
            lm, merged_names = _load_lm(located.base, options)
            tokenizer = _load_tokenizer(name, located.base, options)
        check_chat_template(name, tokenizer)
    with readable_errors(repr(name)):
        generation_config = lm.generation_config
        tensors = _tensors_of_heads(located, merged_names)
        model = _engine(name, lm, tokenizer, tensors, located.shares_projection, compile)
        ends = _ends(generation_config.eos_token_id) | _ends(tokenizer.eos_token_id)
    warnings = [*warnings_about(model, generation_config)]
    if load_in_8bit:
        warnings.append(
            "--load-in-8bit: products look for outlier columns in all rows of a pass, so a tree "
            "changes logits by more than rounding; answers may differ from greedy's"
        )
    if located.gguf is None:
        warnings += warnings_about_weights(located.base)
    else:
        warnings += Metadata(located.gguf.path).warnings(lm)
    if is_elsewhere:
        warnings += warnings_about_unused_weights(located.where, located.base)
    with patience(f"reading the files of {name!r} once more, for their digest"):
        contents = located.identity(contents_of)
    return Loaded(
        model=model,
        name=short_name(name),
        where=located.where,
        base=located.base if located.gguf is None else str(located.gguf.path),
        identity=located.identity(),
        contents=contents,
        eos=ends,
        generation_config=generation_config,
        warnings=tuple(warnings),
        trust_remote_code=trust_remote_code,
    )


def _ends(eos: object) -> frozenset[int]:
    """The token ids that end an answer, from a configuration. UserError where they are no ids."""
    listed = eos if isinstance(eos, list) else [eos]
    ids = [int(each) if isinstance(each, str) and each.isdecimal() else each for each in listed]
    if not all(each is None or type(each) is int for each in ids):
        raise UserError(f"eos_token_id of the model is {shown(eos)}; expected token ids")
    return frozenset(ids) - {None}


def _check_files(base: str) -> None:
    """UserError where a checkpoint's files cannot be those of a language model."""
    check_config(base)
    check_tokenizer_exists(base)
    # transformers takes its defaults, without a word, where this file is damaged.
    read_json(base, "generation_config.json")


def _load_gguf(
    gguf: GGUF, options: _LoadOptions
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The language model and tokenizer of a GGUF file. UserError where an option does not fit."""
    if options.load_in_8bit or options.load_in_4bit or options.device == BALANCED:
        raise UserError(
            f"{gguf.path} is a GGUF file, which is loaded on one device and dequantised; leave out "
            "--load-in-8bit, --load-in-4bit and --device balanced"
        )
    dtype = torch.float32 if options.dtype == "auto" else getattr(torch, options.dtype)
    lm, tokenizer = load_gguf(gguf, dtype)
    _check_attention(str(gguf.path), lm)
    return lm.to(options.device), tokenizer


def _load_lm(base: str, options: _LoadOptions) -> tuple[PreTrainedModel, set[str]]:
    """The language model, and the names of the heads' tensors among its files.

    UserError where a tensor of the model is missing, or one is neither the model's nor a head's.
    """
    dtype = options.dtype
    if dtype == "auto" and options.device == "cpu":
        dtype = "float32"
    config = AutoConfig.from_pretrained(base, trust_remote_code=options.trust_remote_code)
    more = {}
    if options.max_memory:
        more["max_memory"] = options.max_memory
    if options.load_in_8bit or options.load_in_4bit:
        more["quantization_config"] = BitsAndBytesConfig(
            load_in_8bit=options.load_in_8bit,
            load_in_4bit=options.load_in_4bit,
            # Products of 4-bit weights. They would be in float32, which is slow.
            bnb_4bit_compute_dtype=_compute_dtype(dtype, config),
        )
    # The checkpoint's own choice could name code to fetch. Without one, transformers takes "sdpa"
    # where the family has it, else "eager".
    config._attn_implementation = None
    lm, info = AutoModelForCausalLM.from_pretrained(
        base,
        config=config,
        dtype=dtype if dtype == "auto" else getattr(torch, dtype),
        device_map="auto" if options.device == BALANCED else {"": options.device},
        output_loading_info=True,
        # `check_tensors` reports tensors of a wrong size. transformers names them in its log alone.
        ignore_mismatched_sizes=True,
        trust_remote_code=options.trust_remote_code,
        **more,
    )
    if options.device == "cpu":
        _let_go_of_files(lm)
    _check_attention(base, lm)
    check_tensors(base, info)
    return lm, set(info["unexpected_keys"])


def _load_tokenizer(name: str, base: str, options: _LoadOptions) -> PreTrainedTokenizerBase:
    """The tokenizer of a checkpoint. UserError where it cannot be used, see `check_tokenizer`.

    name: that of the model, for messages.
    """

    def load_tokenizer() -> PreTrainedTokenizerBase:
        # The tokenizer of mistral-common, where that is installed, has no chat template.
        return AutoTokenizer.from_pretrained(
            base, trust_remote_code=options.trust_remote_code, mistral_format=False
        )

    check_tokenizer(name, load_tokenizer)
    return load_tokenizer()


def _compute_dtype(dtype: str, config: PretrainedConfig) -> torch.dtype:
    """The dtype of a flag. "auto": the checkpoint's own, or bfloat16 where it names none."""
    if dtype != "auto":
        return getattr(torch, dtype)
    own = config.get_text_config().dtype
    return own if isinstance(own, torch.dtype) else torch.bfloat16


def _check_attention(where: str, lm: PreTrainedModel) -> None:
    """UserError where a model attends in a way whose masks we do not know how to make.

    "sdpa" cannot cap attention's scores, as Gemma 2 does. Such a model is switched to "eager".
    """
    is_capped = getattr(lm.config.get_text_config(), "attn_logit_softcapping", None)
    if is_capped and lm.config._attn_implementation != "eager":
        lm.set_attn_implementation("eager")
    chosen = lm.config._attn_implementation
    if chosen not in ATTENTION:
        raise UserError(
            f"{where!r} chooses its own attention, {chosen!r}; expected {' or '.join(ATTENTION)}"
        )


def _let_go_of_files(lm: PreTrainedModel) -> None:
    """Copy the weights of a model on the CPU into memory of its own.

    transformers maps safetensors into memory. As long as one weight is mapped, the whole file is,
    also where faster products read copies of the weights.
    """
    for parameter in lm.parameters():
        parameter.data = parameter.data.clone()


def _tensors_of_heads(located: Locations, merged_names: set[str]) -> dict[str, torch.Tensor] | None:
    """The tensors of a model's Medusa heads, under their published names. None: it has no heads.

    merged_names: names of heads' tensors among the language model's files.
    """
    if not located.has_separate_heads:
        return read_merged_heads(located.where, merged_names) if merged_names else None
    tensors = read_separate_heads(located.where, registry.weight_files())
    # A base model elsewhere may have heads, too: those of this folder are meant.
    if merged_names and located.base == located.where:
        _check_same(located.where, tensors, read_merged_heads(located.where, merged_names))
    return tensors


def _check_same(
    where: str, separate: dict[str, torch.Tensor], merged: dict[str, torch.Tensor]
) -> None:
    """UserError where a folder's file of heads holds others than its model's weights."""
    if separate.keys() == merged.keys() and all(
        torch.equal(tensor, merged[each]) for each, tensor in separate.items()
    ):
        return
    raise UserError(
        f"{where!r} holds two kinds of Medusa heads: those in {file_of_heads(where)}, and others "
        f"among the model's weights, such as {min(merged)!r}; remove one of them"
    )


def _engine(
    name: str,
    lm: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    tensors: dict[str, torch.Tensor] | None,
    shares_projection: bool | None,
    compile: bool,
) -> Engine:
    """The engine of a language model and its heads' tensors, tested with small trees.

    shares_projection: as in `Locations`.
    """
    output = lm.get_output_embeddings()
    vocab = lm.config.get_text_config().vocab_size
    try:
        heads = None
        if tensors is not None and output is not None:  # Without a projection, the engine says so.
            tensors, tokens = to_published(tensors, vocab, shares_projection is True)
            projection = None if shares_projection is False else output
            heads = MedusaHeads.from_published(tensors, output.weight.shape[1], vocab, projection)
            if tokens is not None:
                heads.restrict_to(tokens)
    except ValueError as error:
        raise UserError(f"the heads of {name!r} do not fit its base model: {error}") from error
    try:
        engine = Engine(lm, heads, tokenizer, fused=compile)
        engine.check_tree_attention()
    except UnsupportedModel as error:
        raise UserError(f"{name!r} cannot be used: {error}") from error
    except torch._dynamo.exc.TorchDynamoException as error:
        raise UserError(
            f"--compile was given, but {name!r} cannot be compiled here: {message_of(error)}; "
            "leave the flag out, or install what is missing (a C++ compiler; on CUDA, Triton)"
        ) from error
    return engine
