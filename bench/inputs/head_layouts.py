"""Translates other programs' names for the tensors of Medusa heads into ours.

    published   {i}.{j}.linear.weight, {i}.{j}.linear.bias, {i}.{n}.weight  (decoders.model.heads)
    vLLM        blocks.{i}.layers.{j}.weight, blocks.{i}.layers.{j}.bias, lm_heads.{i}.weight, or
                lm_head.weight where all heads end in the base model's projection; token_map [n]
                where projections are onto n tokens of the vocabulary
    TensorRT    {i}.medusa_layers.{j}.linear.weight, {i}.medusa_layers.{j}.linear.bias,
                {i}.lm_head.weight  (TensorRT-LLM)

A name may begin with one or more of PREFIXES, such as `medusa_head.`. The parts that training
wrappers put anywhere into names (WRAPPERS), such as `module.`, are left out.
"""

import re

from torch import Tensor

from decoders.model.heads import MedusaHeads

SHARED = "original_lm_head"  # The entry of config.json: heads end in the base model's projection.
# The entry, and its value where heads may be residual blocks alone. Heads of the same version may
# also have projections.
VERSION, RESIDUAL_ONLY = "version", "2"
VLLM_FILE = "model.safetensors"
VLLM_SHARED = "lm_head.weight"
TOKEN_MAP = "token_map"
PREFIXES = ("medusa_head.", "medusa_heads.", "heads.", "medusa.", "model.", "base_model.")
WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
# The names of a program's residual blocks and of its projections.
_VLLM = (
    re.compile(r"blocks\.(\d+)\.layers\.(\d+)\.(weight|bias)"),
    re.compile(r"lm_heads\.(\d+)\.weight"),
)
_TENSORRT = (
    re.compile(r"(\d+)\.medusa_layers\.(\d+)\.linear\.(weight|bias)"),
    re.compile(r"(\d+)\.lm_head\.weight"),
)


def shares_projection(config: dict) -> bool | None:
    """Whether heads end in the base model's projection, by their config.json.

    None: they do where they have none of their own.
    """
    if config.get(SHARED) is True:
        return True
    return None if str(config.get(VERSION)) == RESIDUAL_ONLY else False


def unwrapped(name: str) -> str:
    """The name of a tensor without the parts that training wrappers put into it (WRAPPERS).

    >>> unwrapped("module.model._orig_mod.norm.weight")
    'model.norm.weight'
    """
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def without_prefix(name: str) -> str:
    """The name of a head's tensor without its prefixes (PREFIXES), and unwrapped.

    >>> without_prefix("module.medusa_head.0._orig_mod.0.linear.weight")
    '0.0.linear.weight'
    """
    name = unwrapped(name)
    while (prefix := next((each for each in PREFIXES if name.startswith(each)), None)) is not None:
        name = name.removeprefix(prefix)
    return name


def to_published(
    tensors: dict[str, Tensor], vocab: int, is_shared: bool
) -> tuple[dict[str, Tensor], Tensor | None]:
    """Heads' tensors of any of these layouts under their published names, and their tokens [n].

    The tokens are those that the heads have projections onto; None: all. vocab: of the base model.
    is_shared: whether the configuration says that heads end in the base model's projection.
    ValueError names the tensor that does not fit.
    """
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        plain = without_prefix(name)
        if plain in found:
            raise ValueError(f"tensor {name!r} stands twice, with another prefix")
        found[plain] = tensor
    token_map = found.pop(TOKEN_MAP, None)
    shared = found.pop(VLLM_SHARED, None)
    if shared is not None and not is_shared:
        raise ValueError(f"tensor {VLLM_SHARED!r} is there, but config.json has no {SHARED!r}")
    for blocks, projections in (_VLLM, _TENSORRT):
        found = _renamed(found, blocks, projections)
    own = sorted(name for name in found if re.fullmatch(r"\d+\.\d+\.weight", name))
    if is_shared and own:
        raise ValueError(
            f"config.json says {SHARED!r}, but tensor {own[0]!r} is a projection of its own"
        )
    if token_map is not None:
        if not own:
            raise ValueError(f"tensor {TOKEN_MAP!r} is there, but no projection onto its tokens")
        _check_token_map(token_map, vocab)
        for name in own:
            block = f"{name.split('.')[0]}.0.linear.weight"
            if block not in found:  # Before any memory is taken for a head that has nothing else.
                raise ValueError(f"tensor {block!r} is missing beside {name!r}")
            found[name] = _onto_all_tokens(name, found[name], token_map, vocab)
    return found, token_map


def _renamed(
    tensors: dict[str, Tensor], blocks: re.Pattern, projections: re.Pattern
) -> dict[str, Tensor]:
    """A program's names replaced by the published ones. A block without a bias gets one of zeros.

    blocks: names of its residual blocks: the head, the block, weight or bias. projections: names of
    its projections: the head.
    """
    found_blocks = {name: match for name in tensors if (match := blocks.fullmatch(name))}
    if not found_blocks:
        return tensors
    layers = 1 + max(int(match[2]) for match in found_blocks.values())
    found = {}
    for name, tensor in tensors.items():
        if match := found_blocks.get(name):
            found[f"{match[1]}.{match[2]}.linear.{match[3]}"] = tensor
        elif match := projections.fullmatch(name):
            found[f"{match[1]}.{layers}.weight"] = tensor
        else:
            found[name] = tensor
    for name, match in found_blocks.items():
        bias = f"{match[1]}.{match[2]}.linear.bias"
        if bias not in found:
            found[bias] = tensors[name].new_zeros(tensors[name].shape[0])
    return found


def _check_token_map(token_map: Tensor, vocab: int) -> None:
    is_list = not token_map.is_floating_point() and token_map.ndim == 1
    if not is_list or not len(token_map) or not 0 <= token_map.min() <= token_map.max() < vocab:
        raise ValueError(
            f"tensor {TOKEN_MAP!r} is {token_map.dtype} {list(token_map.shape)}; expected token "
            f"ids below {vocab}"
        )


def _onto_all_tokens(name: str, weight: Tensor, token_map: Tensor, vocab: int) -> Tensor:
    """A projection onto the mapped tokens, extended to the whole vocabulary by rows of zeros."""
    if weight.ndim != 2 or len(weight) != len(token_map):
        raise ValueError(
            f"tensor {name!r} is {list(weight.shape)}; {TOKEN_MAP!r} names {len(token_map)} tokens"
        )
    full = weight.new_zeros(vocab, weight.shape[1])
    return full.index_copy(0, token_map.long(), weight)


def to_vllm(tensors: dict[str, Tensor], layers: int) -> dict[str, Tensor]:
    """Published tensors of heads, each of `layers` blocks, under vLLM's names.

    >>> import torch
    >>> list(to_vllm({"0.0.linear.bias": torch.zeros(1), "0.1.weight": torch.zeros(1)}, 1))
    ['blocks.0.layers.0.bias', 'lm_heads.0.weight']
    """
    renamed = {}
    for name, tensor in tensors.items():
        head, block, *kind = name.split(".")
        if int(block) == layers:
            renamed[f"lm_heads.{head}.weight"] = tensor
        else:
            renamed[f"blocks.{head}.layers.{block}.{kind[-1]}"] = tensor
    return renamed


def vllm_config(heads: MedusaHeads, vocab: int) -> dict[str, object]:
    """The entries of vLLM's configuration of Medusa heads that the published one lacks."""
    layers, number, hidden, _ = heads.block_weight.shape
    return {
        "model_type": "medusa",
        "architectures": ["MedusaModel"],
        "hidden_size": hidden,
        "vocab_size": vocab,
        "truncated_vocab_size": vocab,
        "num_heads": number,
        "num_hidden_layers": layers,
        "medusa_fc_bias": True,
        SHARED: heads.shares_projection,
    }
