"""Heads of Hydra and EAGLE with random weights, and what they compute, done naively.

The naive versions read tensors by their published names, follow the papers, and keep nothing from
one guess to the next.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from decoders.draft_layer import llama_layer, move_to_base
from decoders.eagle.head import EagleHead
from decoders.hydra.heads import PREFIX, HydraHeads
from decoders.model.model import Model
from decoders.tree import Draft
from tests.helpers.models import randomise

Path = tuple[int, ...]  # Tokens after the root.
HIDDEN, VOCAB, MLP, HEAD_DIM = 32, 101, 48, 8  # Of the tiny Llama.
SHAPES = {"q_proj": (32, 32), "k_proj": (16, 32), "v_proj": (16, 32), "o_proj": (32, 32)}


def tiny_hydra(model: Model, heads: int = 5, seed: int = 1, plus_plus: bool = False) -> HydraHeads:
    with torch.random.fork_rng():
        torch.manual_seed(seed)  # Of the biases.
        prefix = llama_layer(model, has_norms=True) if plus_plus else None
        made = randomise(HydraHeads(model, heads, layers=2, prefix=prefix), seed)
    move_to_base(made, model)
    return made


def tiny_eagle(model: Model, seed: int = 1) -> EagleHead:
    with torch.random.fork_rng():
        torch.manual_seed(seed)  # Of the bias.
        made = randomise(EagleHead(model), seed)
    move_to_base(made, model)
    return made


def _random(shapes: Mapping[str, Sequence[int]], seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: 0.25 * torch.randn(*shape, generator=generator) + ("norm" in name)
        for name, shape in shapes.items()
    }


def _layer_shapes(where: str) -> dict[str, Sequence[int]]:
    return {
        **{f"{where}layers.0.self_attn.{name}.weight": shape for name, shape in SHAPES.items()},
        f"{where}layers.0.mlp.gate_proj.weight": (MLP, HIDDEN),
        f"{where}layers.0.mlp.up_proj.weight": (MLP, HIDDEN),
        f"{where}layers.0.mlp.down_proj.weight": (HIDDEN, MLP),
        f"{where}layers.0.post_attention_layernorm.weight": (HIDDEN,),
    }


def eagle_tensors(seed: int = 0) -> dict[str, Tensor]:
    """As published for EAGLE-1 and EAGLE-2, for the tiny Llama."""
    shapes = {
        "fc.weight": (HIDDEN, 2 * HIDDEN),
        "fc.bias": (HIDDEN,),
        "embed_tokens.weight": (VOCAB, HIDDEN),
        **_layer_shapes(""),
    }
    return _random(shapes, seed)


def hydra_tensors(heads: int = 3, seed: int = 0, plus_plus: bool = False) -> dict[str, Tensor]:
    """As published for heads of two blocks, for the tiny Llama."""
    shapes: dict[str, Sequence[int]] = {"input_embed_fn.weight": (VOCAB, HIDDEN)}
    first, second, out = (1, 3, ".1") if plus_plus else (0, 1, "")
    for head in range(heads):
        wide = (HIDDEN, (head + 2) * HIDDEN)
        for layer in ("linear", "res_connection"):
            shapes[f"hydra_mlp.{head}.{first}.{layer}.weight"] = wide
            shapes[f"hydra_mlp.{head}.{first}.{layer}.bias"] = (HIDDEN,)
        shapes[f"hydra_mlp.{head}.{second}.linear.weight"] = (HIDDEN, HIDDEN)
        shapes[f"hydra_mlp.{head}.{second}.linear.bias"] = (HIDDEN,)
        shapes[f"hydra_lm_head.{head}{out}.weight"] = (VOCAB, HIDDEN)
        shapes[f"hydra_lm_head.{head}{out}.bias"] = (VOCAB,)
    if plus_plus:
        shapes |= _layer_shapes(PREFIX)
        shapes[f"{PREFIX}layers.0.input_layernorm.weight"] = (HIDDEN,)
        shapes[f"{PREFIX}norm.weight"] = (HIDDEN,)
        shapes[f"{PREFIX}embed_tokens.weight"] = (VOCAB, HIDDEN)
    return _random(shapes, seed)


def _normed(x: Tensor, weight: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weight


def _rotated(x: Tensor) -> Tensor:
    """[rows, heads * HEAD_DIM], every head turned by its row's position."""
    half = HEAD_DIM // 2
    angle = torch.arange(len(x)).unsqueeze(1) * 10_000.0 ** (-torch.arange(half) / half)
    first, second = x.unflatten(-1, (-1, 2, half)).unbind(-2)  # [rows, heads, half]
    cos, sin = angle.cos().unsqueeze(1), angle.sin().unsqueeze(1)
    turned = torch.stack((first * cos - second * sin, second * cos + first * sin), -2)
    return turned.flatten(-3)


def naive_layer(tensors: Mapping[str, Tensor], x: Tensor, where: str = "") -> Tensor:
    """The output [rows, HIDDEN] of one Llama layer, with norms where there are any."""
    layer = {
        name.removeprefix(f"{where}layers.0.").removesuffix(".weight"): tensor
        for name, tensor in tensors.items()
    }
    has_norms = "input_layernorm" in layer
    read = _normed(x, layer["input_layernorm"]) if has_norms else x
    q, k = (_rotated(read @ layer[f"self_attn.{name}"].T) for name in ("q_proj", "k_proj"))
    v = read @ layer["self_attn.v_proj"].T
    parts = []
    for head in range(4):
        group = slice(head // 2 * HEAD_DIM, (head // 2 + 1) * HEAD_DIM)  # Two heads share one.
        query = q[:, head * HEAD_DIM : (head + 1) * HEAD_DIM]
        score = (query @ k[:, group].T / HEAD_DIM**0.5).tril()
        score += torch.full_like(score, -torch.inf).triu(1)
        parts.append(score.softmax(-1) @ v[:, group])
    x = x + torch.cat(parts, -1) @ layer["self_attn.o_proj"].T
    read = _normed(x, layer["post_attention_layernorm"])
    gate = F.silu(read @ layer["mlp.gate_proj"].T) * (read @ layer["mlp.up_proj"].T)
    x = x + gate @ layer["mlp.down_proj"].T
    return _normed(x, tensors[f"{where}norm.weight"]) if has_norms else x


def naive_eagle(
    model: Model, tensors: Mapping[str, Tensor], text: list[int], root: int
) -> Callable[[Path], Tensor]:
    """The logits [vocab] that the head has after the root and a path."""
    embedding = model.lm.get_input_embeddings().weight
    projection = model.lm.get_output_embeddings().weight
    features = model.hidden_states_of(torch.tensor([text]))[0]

    def logits_of(path: Path) -> Tensor:
        known = features
        for guessed in range(len(path) + 1):
            tokens = [*text[1:], root, *path[:guessed]]
            pairs = torch.cat((embedding[tokens], known), -1)
            output = naive_layer(tensors, pairs @ tensors["fc.weight"].T + tensors["fc.bias"])
            known = torch.cat((known, output[-1:]))
        return known[-1] @ projection.T

    return logits_of


def naive_hydra(
    model: Model, tensors: Mapping[str, Tensor], text: list[int], root: int
) -> Callable[[Path], Tensor]:
    """The logits [vocab] that the heads have after the root and a path."""
    embedding = model.lm.get_input_embeddings().weight
    hidden_states = model.hidden_states_of(torch.tensor([text]))[0]
    first, second, out = 0, 1, ""
    if f"{PREFIX}norm.weight" in tensors:
        hidden_states = naive_layer(tensors, hidden_states, PREFIX)
        first, second, out = 1, 3, ".1"

    def linear(name: str, x: Tensor) -> Tensor:
        return tensors[f"{name}.weight"] @ x + tensors[f"{name}.bias"]

    def logits_of(path: Path) -> Tensor:
        head = len(path)
        x = torch.cat((hidden_states[-1], embedding[root], *embedding[list(path)]))
        block = f"hydra_mlp.{head}.{first}"
        x = linear(f"{block}.res_connection", x) + F.silu(linear(f"{block}.linear", x))
        x = x + F.silu(linear(f"hydra_mlp.{head}.{second}.linear", x))
        return linear(f"hydra_lm_head.{head}{out}", x)

    return logits_of


def naive_beam(
    logits_of: Callable[[Path], Tensor], nodes: int, topk: int, beam: int, depth: int
) -> dict[Path, float]:
    """The paths of EAGLE-2's tree with their log probabilities, best first. The root's is ()."""
    level: dict[Path, float] = {(): 0.0}
    candidates = dict(level)
    for _ in range(depth):
        extended = sorted(level, key=level.__getitem__, reverse=True)[:beam]
        above, level = level, {}
        for path in extended:
            log_prob = logits_of(path).log_softmax(-1)
            for token in log_prob.topk(topk).indices.tolist():
                level[(*path, token)] = above[path] + log_prob[token].item()
        candidates |= level
    best = sorted(candidates, key=candidates.__getitem__, reverse=True)[:nodes]
    return {path: candidates[path] for path in best}


def paths_of(draft: Draft) -> dict[Path, float]:
    """The paths of a draft with their log probabilities, in its order."""
    parent, token = draft.tree.parent.tolist(), draft.token.tolist()
    paths: list[Path] = [()]
    for node in range(1, len(token)):
        paths.append((*paths[parent[node]], token[node]))
    return dict(zip(paths, draft.log_prob.tolist(), strict=True))
