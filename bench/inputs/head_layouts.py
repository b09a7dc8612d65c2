"""Translates other programs' names for the tensors of Medusa heads into ours.

    published   {i}.{j}.linear.weight, {i}.{j}.linear.bias, {i}.{n}.weight  (decoders.model.heads)
    vLLM        blocks.{i}.layers.{j}.weight, blocks.{i}.layers.{j}.bias, lm_heads.{i}.weight, or
                lm_head.weight where all heads end in the base model's projection; token_map [n]
                where projections are onto n tokens of the vocabulary

A name may begin with one or more of PREFIXES, such as `medusa_head.` or `module.`.
"""

import re

from torch import Tensor

from decoders.model.heads import MedusaHeads

SHARED = "original_lm_head"  # The entry of config.json: heads end in the base model's projection.
VLLM_FILE = "model.safetensors"
VLLM_SHARED = "lm_head.weight"
TOKEN_MAP = "token_map"
PREFIXES = ("medusa_head.", "medusa_heads.", "heads.", "module.", "_orig_mod.", "medusa.")
_VLLM_BLOCK = re.compile(r"blocks\.(\d+)\.layers\.(\d+)\.(weight|bias)")
_VLLM_PROJECTION = re.compile(r"lm_heads\.(\d+)\.weight")


def without_prefix(name: str) -> str:
    """The name of a tensor without its prefixes (PREFIXES).

    >>> without_prefix("module.medusa_head.0.0.linear.weight")
    '0.0.linear.weight'
    """
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
    found = _from_vllm(found)
    projections = sorted(name for name in found if re.fullmatch(r"\d+\.\d+\.weight", name))
    if is_shared and projections:
        raise ValueError(
            f"config.json says {SHARED!r}, but tensor {projections[0]!r} is a projection of its own"
        )
    if token_map is not None:
        if not projections:
            raise ValueError(f"tensor {TOKEN_MAP!r} is there, but no projection onto its tokens")
        _check_token_map(token_map, vocab)
        for name in projections:
            block = f"{name.split('.')[0]}.0.linear.weight"
            if block not in found:  # Before any memory is taken for a head that has nothing else.
                raise ValueError(f"tensor {block!r} is missing beside {name!r}")
            found[name] = _onto_all_tokens(name, found[name], token_map, vocab)
    return found, token_map


def _from_vllm(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """vLLM's names replaced by the published ones. A block without a bias gets one of zeros."""
    blocks = {name: match for name in tensors if (match := _VLLM_BLOCK.fullmatch(name))}
    if not blocks:
        return tensors
    layers = 1 + max(int(match[2]) for match in blocks.values())
    found = {}
    for name, tensor in tensors.items():
        if match := blocks.get(name):
            found[f"{match[1]}.{match[2]}.linear.{match[3]}"] = tensor
        elif match := _VLLM_PROJECTION.fullmatch(name):
            found[f"{match[1]}.{layers}.weight"] = tensor
        else:
            found[name] = tensor
    for name, match in blocks.items():
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
