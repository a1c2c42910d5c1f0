"""Layer kinds: the arithmetic of each, one kind a file."""

from collections.abc import Callable
from typing import Any

from torch import nn

from bnn_lightning.core.ops.base import Op
from bnn_lightning.core.ops.convolution import conv_op
from bnn_lightning.core.ops.linear import linear_op

# A new layer kind is one more line here.
OPS: dict[type, Callable[[Any, int | None], Op]] = {nn.Linear: linear_op, nn.Conv1d: conv_op, nn.Conv2d: conv_op}
