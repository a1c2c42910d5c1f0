"""RandomAttention: multi-head attention whose projections are random."""

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnn_lightning.core.kernels.compiling import compiling
from bnn_lightning.core.layers import RandomLayer
from bnn_lightning.core.methods.base import Method
from bnn_lightning.core.ops import kind_of
from bnn_lightning.core.ops.linear import LinearOp
from bnn_lightning.core.posteriors import Posterior


def is_attention(layer: nn.Module) -> bool:
    """Whether :class:`RandomAttention` can take the place of ``layer``."""
    return (
        kind_of(layer, (nn.MultiheadAttention,)) is not None
        and isinstance(layer, nn.MultiheadAttention)
        and layer.bias_k is None
        and not layer.add_zero_attn
    )


class RandomAttention(RandomLayer):
    """``nn.MultiheadAttention`` whose input and output projections are random linear layers under the method.

    Inputs, masks and outputs are those of the plain layer. Vaswani et al. 2017 (arXiv:1706.03762), section 3.2.2.

    Args:
        layer: the plain layer, without ``add_bias_kv`` and ``add_zero_attn``.
        method: how the projections are random.

    Raises:
        TypeError: when ``layer`` is something else.
    """

    in_proj_weight: Any
    q_proj_weight: Any
    k_proj_weight: Any
    v_proj_weight: Any
    in_proj_bias: Any

    def __init__(self, layer: Any, method: Method):
        if not is_attention(layer):
            raise TypeError(f"layer must be MultiheadAttention without added keys, got {type(layer).__name__}.")
        projections = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight", "in_proj_bias")
        super().__init__(layer, method, (*projections, "out_proj.weight", "out_proj.bias"))
        self.embed_dim, self.kdim, self.vdim = layer.embed_dim, layer.kdim, layer.vdim
        self.num_heads, self.head_dim = layer.num_heads, layer.head_dim
        self.dropout, self.batch_first = layer.dropout, layer.batch_first
        self._qkv_same_embed_dim = layer._qkv_same_embed_dim  # TransformerEncoderLayer reads it
        self.out_proj: Any = nn.Module()
        self.start_from(layer)

    def posterior_of(self, name: str, value: Tensor) -> Posterior:
        return self.method.bias(value) if name.endswith("bias") else self.method.weight(value, _linear(*value.shape))

    def plain(self, values: Mapping[str, Tensor]) -> nn.Module:
        layer = nn.MultiheadAttention(
            self.embed_dim,
            self.num_heads,
            self.dropout,
            bias="in_proj_bias" in values,
            kdim=self.kdim,
            vdim=self.vdim,
            batch_first=self.batch_first,
            device="meta",
        )
        for name, value in values.items():
            owner, _, own_name = name.rpartition(".")
            setattr(layer.get_submodule(owner), own_name, nn.Parameter(value))
        return layer

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Outputs, and weights ``(batch, tokens, keys)`` or with heads as second axis; arguments are torch's.

        Raises:
            ValueError: when ``is_causal`` comes without ``attn_mask``, of which it is only a hint.
        """
        if is_causal and attn_mask is None:
            raise ValueError("attn_mask must be given where is_causal says that it is causal, got None.")
        is_batched = query.dim() == 3
        is_self = query is key and key is value
        axis = 0 if self.batch_first or not is_batched else 1
        query, key, value = (_batch_first(x, axis, is_batched) for x in (query, key, value))
        with compiling(self.compiles):
            q, k, v = (self._heads(x) for x in self._projected(query, key, value, is_self))
            weights = q @ k.transpose(-2, -1) / math.sqrt(self.head_dim)
            if attn_mask is not None:
                is_per_head = attn_mask.dim() == 3
                weights = weights + _added(
                    attn_mask.unflatten(0, (-1, self.num_heads)) if is_per_head else attn_mask, q
                )
            if key_padding_mask is not None:
                padding = key_padding_mask if is_batched else key_padding_mask[None]
                weights = weights + _added(padding[:, None, None], q)
            weights = F.dropout(weights.softmax(-1), self.dropout, self.training)
            y = (weights @ v).transpose(1, 2).flatten(2)
            y = self._linear(y, "out_proj.weight", "out_proj.bias")
        shown = (weights.mean(1) if average_attn_weights else weights) if need_weights else None
        if not is_batched:
            return y[0], None if shown is None else shown[0]
        return y if axis == 0 else y.transpose(0, 1), shown

    def _projected(self, query: Tensor, key: Tensor, value: Tensor, is_self: bool) -> tuple[Tensor, ...]:
        """Queries, keys and values, each ``(batch, tokens, embed_dim)``."""
        if is_self and self._qkv_same_embed_dim:
            return self._linear(query, "in_proj_weight", "in_proj_bias").chunk(3, -1)
        if self._qkv_same_embed_dim:
            # The parts of one tensor are independent of each other: each call draws all, and one part of each is used.
            calls = [self._linear(x, "in_proj_weight", "in_proj_bias").chunk(3, -1) for x in (query, key, value)]
            return tuple(parts[index] for index, parts in enumerate(calls))
        names = ("q_proj_weight", "k_proj_weight", "v_proj_weight")
        projected = [self._linear(x, name, None) for x, name in zip((query, key, value), names, strict=True)]
        if self.in_proj_bias is None:
            return tuple(projected)
        bias = self.in_proj_bias.sample() if self.sampling else self.in_proj_bias.mean
        return tuple(x + part for x, part in zip(projected, bias.chunk(3), strict=True))

    def _linear(self, x: Tensor, weight_name: str, bias_name: str | None) -> Tensor:
        tensors = self.tensors()
        weight, bias = tensors[weight_name], None if bias_name is None else tensors.get(bias_name)
        op = _linear(*weight.mean.shape)
        if self.sampling:
            return self.method.forward(op, x, weight, bias)
        return op(x, weight.mean, None if bias is None else bias.mean)

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


def _linear(outputs: int, inputs: int) -> LinearOp:
    return LinearOp(inputs, inputs, outputs)


def _batch_first(x: Tensor, axis: int, is_batched: bool) -> Tensor:
    return x.transpose(0, axis) if is_batched else x[None]


def _added(mask: Tensor, like: Tensor) -> Tensor:
    """A mask of torch's, where true or -inf leaves a key out, as numbers to be added to the scores."""
    if mask.dtype != torch.bool:
        return mask.to(like.dtype)
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill(mask, -math.inf)
