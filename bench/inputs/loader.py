"""The one place that turns a name into a ready model.

    demo                 the embedded demo model
    smollm2              a small real chat model (`bench.inputs.published_models`)
    a folder or hub id   of a checkpoint in one of the layouts of `bench.inputs.checkpoints`: with
                         Medusa heads, or any causal LM without them
    model.gguf           a GGUF file, or a folder that holds one (`bench.inputs.gguf_files`)

A checkpoint cannot execute code. Pickles are read with weights_only=True, and Python files that a
checkpoint brings along run only where `trust_remote_code` is given.
"""

import json
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import torch
import transformers
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

from bench.common.errors import UserError
from bench.common.files import shown
from bench.common.strangers import message_of, strangers_code, told
from bench.common.waiting import patience
from bench.inputs.bounds import check_chat_template, check_tokenizer
from bench.inputs.checkpoints import (
    BASE,
    DEMO,
    base_of,
    check_base,
    check_config,
    check_tensors,
    check_tokenizer_exists,
    check_weights_exist,
    file_of_heads,
    identity_of,
    read_config,
    read_json,
    read_merged_heads,
    read_separate_heads,
    refuse_adapter,
    refuse_pointers,
    short_name,
)
from bench.inputs.devices import BALANCED, check_device
from bench.inputs.fetched_models import fetched_model
from bench.inputs.gguf_files import GGUF, find_gguf, load_gguf
from bench.inputs.head_layouts import shares_projection, to_published
from bench.inputs.model_warnings import warnings_about
from bench.inputs.published_models import MODELS, heads_folder, published_name
from decoders import registry
from decoders.engine.engine import Engine
from decoders.model.heads import MedusaHeads
from decoders.model.model import UnsupportedModel

ATTENTION = ("sdpa", "eager")  # Those whose masks we know how to make.


@dataclass(frozen=True, eq=False)
class Loaded:
    """A model that is ready to decode, with its tokenizer and its name."""

    model: Engine
    name: str  # Short, for file names and tables.
    where: str  # The folder or hub id of the checkpoint. Decoders' own files are there, too.
    # Digest or commit of its files, and of the base model's files if these are elsewhere.
    identity: str
    eos: frozenset[int]  # Token ids that end an answer.
    # As the checkpoint has it. The model's own is plain greedy decoding.
    generation_config: GenerationConfig | None = None
    warnings: tuple[str, ...] = ()  # What a user should know about the model.
    # Whether Python files of the checkpoint may be executed. It holds for drafting models, too.
    trust_remote_code: bool = False

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer of the model."""
        return self.model.tokenizer


@dataclass(frozen=True)
class _Places:
    """Where the parts of a model lie: folders or hub ids."""

    where: str  # Place of the heads, and of the files that are fitted to them.
    base: str  # Place of the language model.
    has_separate_heads: bool
    # Whether heads end in the language model's own projection. None: where they have none.
    shares_projection: bool | None = False
    gguf: GGUF | None = None  # The language model's file. None: an ordinary checkpoint.
    # Identity of a published model, whose checkpoint was made here. None: digest the files.
    base_identity: str | None = None

    def identity(self) -> str:
        """The identity of all files of the model."""
        if self.gguf is not None:
            heads = [identity_of(self.where)] if self.has_separate_heads else []
            return " ".join([*heads, identity_of(str(self.gguf.path))])
        if self.base_identity is not None:
            return f"{identity_of(self.where)} {self.base_identity}"
        return " ".join(identity_of(part) for part in dict.fromkeys((self.where, self.base)))


def _places(name: str) -> _Places:
    """UserError where there is no model of this name."""
    if (published := published_name(name)) is not None:
        heads = str(heads_folder(published))
        if name != published:  # The hub id.
            return _Places(heads, name, has_separate_heads=True, shares_projection=True)
        base, digest = str(fetched_model(name)), MODELS[name].file_sha256
        return _Places(
            heads, base, has_separate_heads=True, shares_projection=True, base_identity=digest
        )
    if (gguf := find_gguf(name)) is not None:
        return _Places(gguf.folder, gguf.folder, has_separate_heads=False, gguf=gguf)
    where = str(files(__package__) / "demo") if name == DEMO else name
    refuse_adapter(where)
    refuse_pointers(where)
    config = read_config(where)
    if BASE in config:
        base = base_of(where, config)
        if (gguf := find_gguf(base)) is not None:
            return _Places(where, gguf.folder, True, shares_projection(config), gguf)
        check_base(where, base)
        refuse_adapter(base)
        refuse_pointers(base)
        return _Places(where, base, True, shares_projection(config))
    check_weights_exist(where, config)
    has_separate_heads = file_of_heads(where) is not None
    return _Places(where, where, has_separate_heads, shares_projection(config))


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
    with _readable_errors(repr(name)):
        places = _places(name)
    is_elsewhere = places.base != places.where
    what = f"{places.base!r}, the base model of {name!r}," if is_elsewhere else repr(name)
    with _readable_errors(what), patience(f"loading model {name!r}"):
        if places.gguf is not None:
            lm, tokenizer = _load_gguf(places.gguf, options)
            merged_names = set()
        else:
            try:
                check_config(places.base)
                check_tokenizer_exists(places.base)
                # transformers takes its defaults, without a word, where this file is damaged.
                read_json(places.base, "generation_config.json")
            except UserError as error:
                if not is_elsewhere:
                    raise
                raise UserError(f"{what} cannot be used: {error}") from error
            lm, merged_names = _load_lm(places.base, options)

            def load_tokenizer() -> PreTrainedTokenizerBase:
                return AutoTokenizer.from_pretrained(
                    places.base, trust_remote_code=trust_remote_code
                )

            check_tokenizer(name, load_tokenizer)
            tokenizer = load_tokenizer()
        check_chat_template(name, tokenizer)
    with _readable_errors(repr(name)):
        tensors = None
        if places.has_separate_heads:
            tensors = read_separate_heads(places.where, registry.weight_files())
            # A base model elsewhere may have heads, too: those of this folder are meant.
            if merged_names and places.base == places.where:
                _check_same(places.where, tensors, read_merged_heads(places.where, merged_names))
        elif merged_names:
            tensors = read_merged_heads(places.where, merged_names)
        generation_config = lm.generation_config
        model = _engine(name, lm, tokenizer, tensors, places.shares_projection, compile)
        ends = _ends(generation_config.eos_token_id) | _ends(tokenizer.eos_token_id)
    return Loaded(
        model,
        short_name(name),
        places.where,
        places.identity(),
        ends,
        generation_config,
        tuple(warnings_about(model, generation_config)),
        trust_remote_code,
    )


def model_identity(name: str) -> str:
    """The identity that a model of this name is loaded with. UserError where there is none."""
    with _readable_errors(repr(name)):
        return _places(name).identity()


def _ends(eos: object) -> frozenset[int]:
    """The token ids that end an answer, from a configuration. UserError where they are no ids."""
    listed = eos if isinstance(eos, list) else [eos]
    ids = [int(each) if isinstance(each, str) and each.isdecimal() else each for each in listed]
    if not all(each is None or type(each) is int for each in ids):
        raise UserError(f"eos_token_id of the model is {shown(eos)}; expected token ids")
    return frozenset(ids) - {None}


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
    return lm.to(options.device), tokenizer


def _load_lm(base: str, options: _LoadOptions) -> tuple[PreTrainedModel, set[str]]:
    """The language model, and the names of the heads' tensors among its files.

    UserError where a tensor of the model is missing, or one is neither the model's nor a head's.
    """
    dtype = options.dtype
    if dtype == "auto" and options.device == "cpu":
        dtype = "float32"
    more = {}
    if options.max_memory:
        more["max_memory"] = options.max_memory
    if options.load_in_8bit or options.load_in_4bit:
        more["quantization_config"] = BitsAndBytesConfig(
            load_in_8bit=options.load_in_8bit, load_in_4bit=options.load_in_4bit
        )
    config = AutoConfig.from_pretrained(base, trust_remote_code=options.trust_remote_code)
    # The checkpoint's own choice could name code to fetch. Without one, transformers takes "sdpa"
    # where the family has it, else "eager".
    config._attn_implementation = None
    lm, info = AutoModelForCausalLM.from_pretrained(
        base,
        config=config,
        dtype=dtype if dtype == "auto" else getattr(torch, dtype),
        device_map="auto" if options.device == BALANCED else {"": options.device},
        output_loading_info=True,
        # transformers would refuse them, too, but name them in its log alone.
        ignore_mismatched_sizes=True,
        trust_remote_code=options.trust_remote_code,
        **more,
    )
    if options.device == "cpu":
        _let_go_of_files(lm)
    if lm.config._attn_implementation not in ATTENTION:
        raise UserError(
            f"{base!r} chooses its own attention, {lm.config._attn_implementation!r}; expected "
            f"{' or '.join(ATTENTION)}"
        )
    check_tensors(base, info)
    return lm, set(info["unexpected_keys"])


def _let_go_of_files(lm: PreTrainedModel) -> None:
    """Copy the weights of a model on the CPU into memory of its own.

    transformers maps safetensors into memory. As long as one weight is mapped, the whole file is,
    also where faster products read copies of the weights.
    """
    for parameter in lm.parameters():
        parameter.data = parameter.data.clone()


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

    shares_projection: as in `_Places`.
    """
    hidden = lm.get_output_embeddings().weight.shape[1]
    vocab = lm.config.get_text_config().vocab_size
    try:
        heads = None
        if tensors is not None:
            tensors, tokens = to_published(tensors, vocab, shares_projection is True)
            projection = None if shares_projection is False else lm.get_output_embeddings()
            heads = MedusaHeads.from_published(tensors, hidden, vocab, projection)
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


def check_model_name(name: str) -> None:
    """UserError where a name cannot be a model. Nothing is loaded."""
    if name == DEMO or published_name(name) is not None or find_gguf(name) is not None:
        return
    folder = Path(name)
    if folder.is_file():
        raise UserError(f"model {name!r} is a file; expected {DEMO!r}, a folder or a hub id")
    if folder.is_dir():
        with _readable_errors(repr(name)):
            refuse_adapter(name)
            refuse_pointers(name)
            config = read_config(name)
            if BASE not in config:
                check_weights_exist(name, config)
        return
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise UserError(f"model folder {name!r} does not exist")


@contextmanager
def _readable_errors(what: str) -> Iterator[None]:
    """Silence the libraries' logging, and turn their errors into a UserError of one line.

    what: the quoted name of the model, as a message says it.
    """
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with strangers_code(lambda error: _in_words(what, error)):
            yield
    finally:
        logging.set_verbosity(verbosity)
        logging.enable_progress_bar()


def _in_words(what: str, error: BaseException) -> str:
    """What a library's error says about a model. what: its quoted name."""
    if isinstance(error, pickle.UnpicklingError):
        return (
            f"a file of {what} is not a plain tensor file (a pickle may hold code) and was not "
            "opened; expected safetensors, or a pickle of tensors alone"
        )
    if isinstance(error, (SafetensorError, json.JSONDecodeError, UnicodeDecodeError)):
        return f"a file of {what} is damaged: {message_of(error)}"
    if isinstance(error, ImportError):
        return f"{what} needs a package that is not installed: {message_of(error)}"
    if isinstance(error, KeyError):
        return (
            f"model {what} cannot be loaded: transformers {transformers.__version__} stops at "
            f"{message_of(error)}; either config.json lacks it, or this version does not know it"
        )
    if "trust_remote_code" in str(error):
        return (
            f"{what} brings Python code of its own, which was not executed; read it, and if you "
            "trust it, give --trust-remote-code"
        )
    return f"model {what} cannot be loaded: {told(error)}"
