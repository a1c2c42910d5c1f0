"""Layer kinds that can be random: the arithmetic of each, one kind in a file."""

from bnn_lightning.core.ops.base import Op, kind_of, layer_kind, layer_kinds, op_of
from bnn_lightning.core.ops.convolution import ConvOp
from bnn_lightning.core.ops.linear import LinearOp

__all__ = ["ConvOp", "LinearOp", "Op", "kind_of", "layer_kind", "layer_kinds", "op_of"]
