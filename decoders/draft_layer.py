"""One Llama layer that reads the committed text, with keys and values of its own.

Some trained drafters are a layer of the same kind as the base model's. What it reads at a position
(features, embeddings) is the drafter's. This module makes the layer by the base model's
configuration, and keeps its cache.

Rows are committed in the order of the text. `read` looks ahead: its rows stand after the committed
ones. They attend to all committed rows, and to one another as a matrix says. Later rows overwrite
them.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from transformers import DynamicCache, LlamaConfig, LlamaModel

from decoders.model.cache import KVCache
from decoders.model.model import Model
from decoders.model.named_tensors import check_tensors

ATTENTION = "layers.0.self_attn"


def llama_layer(
    model: Model, has_norms: bool, published: Mapping[str, Tensor] | None = None
) -> LlamaModel:
    """A Llama of one layer, without embeddings, as wide as the base model. Float32, on the CPU.

    has_norms: whether the layer's input and its output are normalised. published: tensors that it
    is to hold; they decide the size of its MLP and whether its attention has biases. None: the MLP
    is as large as the base model's, and there are no biases.
    """
    published = published or {}
    gate = published.get("layers.0.mlp.gate_proj.weight")
    has_bias = f"{ATTENTION}.q_proj.bias" in published
    base = model.lm.config.get_text_config()
    hidden, heads = model.hidden, base.num_attention_heads
    intermediate = getattr(base, "intermediate_size", None) or 4 * hidden
    if gate is not None and gate.ndim == 2:
        intermediate = len(gate)
    rope = getattr(base, "rope_parameters", None) or {}
    if "rope_theta" in rope:
        rope = {key: value for key, value in rope.items() if key != "partial_rotary_factor"}
    else:  # The base model has no rotary positions, or several kinds of them.
        rope = None
    layer = LlamaModel(
        LlamaConfig(
            vocab_size=1,
            hidden_size=hidden,
            intermediate_size=intermediate,
            num_hidden_layers=1,
            num_attention_heads=heads,
            num_key_value_heads=getattr(base, "num_key_value_heads", None) or heads,
            head_dim=getattr(base, "head_dim", None) or hidden // heads,
            rms_norm_eps=getattr(base, "rms_norm_eps", 1e-6),
            max_position_embeddings=model.context,
            rope_parameters=rope,
            attention_bias=has_bias,
            pad_token_id=None,
            bos_token_id=None,
            eos_token_id=None,
        )
    )
    layer.embed_tokens = nn.Identity()
    if has_bias and f"{ATTENTION}.o_proj.bias" not in published:  # As in Qwen2.
        layer.layers[0].self_attn.o_proj.bias = None
    if not has_norms:
        layer.norm = layer.layers[0].input_layernorm = nn.Identity()
    return layer


def move_to_base(module: nn.Module, model: Model) -> None:
    """Move a drafter's module to the base model's device, in its dtype.

    Only parameters get the dtype: rotary frequencies would lose their precision.
    """
    module.eval().requires_grad_(False).to(model.device)
    for parameter in module.parameters():
        parameter.data = parameter.data.to(model.dtype)


class Published(nn.Module):
    """A drafter's module whose tensors have published names."""

    def published(self) -> dict[str, Tensor]:
        """The tensors under their published names."""
        raise NotImplementedError

    def take(self, tensors: Mapping[str, Tensor], what: str, model: Model) -> None:
        """Become the module of these tensors, ready to draft for `model`.

        The module was made on the meta device, so that shapes are checked before any memory is
        taken. what: see `check_tensors`. ValueError as there.
        """
        check_tensors(self.published(), tensors, what)
        self.to_empty(device="cpu")
        for layer in self.modules():
            if isinstance(layer, LlamaModel):  # Rotary frequencies are in no file.
                layer.rotary_emb = type(layer.rotary_emb)(layer.config)
        with torch.no_grad():
            for name, own in self.published().items():
                own.copy_(tensors[name])
        move_to_base(self, model)


class DraftLayer:
    """A layer's cache: committed rows, and room for the rows of one draft."""

    def __init__(self, layer: LlamaModel, model: Model, most_kept: int, most_ahead: int) -> None:
        """most_kept: most rows of one `commit`. most_ahead: most uncommitted rows of a draft."""
        self.layer = layer
        self.model = model
        self.most_kept = most_kept
        self.room = most_kept + most_ahead
        parameter = next(layer.parameters())
        self.device, self.dtype = parameter.device, parameter.dtype
        probe = DynamicCache(config=layer.config)
        self._run(torch.zeros(1, model.hidden, device=self.device, dtype=self.dtype), probe)
        self.cache = KVCache(probe)
        # [1] committed rows, on the device. The host knows them only to within one step.
        self.length = torch.zeros(1, dtype=torch.long, device=self.device)

    def _run(self, inputs: Tensor, cache: DynamicCache | KVCache, **more: Tensor) -> Tensor:
        keyword = {self.model.cache_keyword: cache}
        output = self.layer(inputs_embeds=inputs.unsqueeze(0), **keyword, **more)
        return output.last_hidden_state.squeeze(0)

    def start(self, inputs: Tensor) -> Tensor:
        """Forget everything, and commit rows [rows, hidden]. Their outputs [rows, hidden]."""
        self.cache.reserve(self.model.cache.capacity + self.room)
        self.cache.wipe()
        self.length.fill_(len(inputs))
        return self._run(inputs, self.cache) if len(inputs) > 0 else inputs

    def commit(self, inputs: Tensor, count: Tensor) -> Tensor:
        """Commit the first `count` [1] of some rows [rows, hidden]. The outputs of all of them."""
        row = torch.arange(len(inputs), device=self.device)
        outputs = self.read(inputs, row.unsqueeze(1) >= row)
        # Rehearsed steps commit more rows than fit. The clamp keeps later writes in the cache.
        self.length.add_(count).clamp_(max=self.cache.capacity - self.room)
        return outputs

    def read(self, inputs: Tensor, attends: Tensor) -> Tensor:
        """The outputs [rows, hidden] of rows [rows, hidden] after the committed ones.

        attends: [rows, ahead] bool, whether a row attends to a row after the committed ones. The
        last `rows` of these are the new rows themselves; `read` made the others since the last
        commit. A row's position follows from how many it attends to.
        """
        rows, ahead = attends.shape
        slots = self.length + torch.arange(ahead, device=self.device)
        width = self.cache.capacity
        if not self.model.static_shapes:
            # The host does not know yet how many rows the step under way has committed.
            width = min(width, self.model.length + self.most_kept + ahead)
        masked = torch.finfo(self.dtype).min
        mask = torch.zeros(width, dtype=self.dtype, device=self.device)
        mask.masked_fill_(torch.arange(width, device=self.device) >= self.length, masked)
        among = torch.zeros_like(attends, dtype=self.dtype).masked_fill(~attends, masked)
        mask = mask.expand(rows, -1).index_copy(1, slots, among)
        position = self.length + attends.sum(-1) - 1
        self.cache.static = slots[ahead - rows :], width
        try:
            return self._run(
                inputs,
                self.cache,
                attention_mask=mask[None, None],
                position_ids=position.unsqueeze(0),
            )
        finally:
            self.cache.static = None
