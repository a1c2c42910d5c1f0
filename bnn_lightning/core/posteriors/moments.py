"""Mean and variance of a layer's outputs under independent random weights."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress

import torch
from torch import Tensor

from bnn_lightning.core.kernels.elementwise import at_least_float32
from bnn_lightning.core.kernels.memory import like
from bnn_lightning.core.ops.base import Op
from bnn_lightning.core.posteriors.base import Posterior


def moments(op: Op, x: Tensor, weight: Posterior, bias: Posterior | None) -> tuple[Tensor, Tensor]:
    """Mean and variance that independent random weights give each output, in at least float32.

    m = op(x, mean of w, mean of b), v = op(x^2, variance of w, variance of b).
    Kingma et al. 2015 (arXiv:1506.02557), section 2.3.

    The mean of the bias has no place in v, which it could make negative.
    """
    mean = op(x, weight.mean, None if bias is None else bias.mean)
    # sigma^2 is near 1e-5: half precision rounds it to 8 bits or to zero, so this path stays in float32.
    with torch.autocast(x.device.type, enabled=False):
        dtype = at_least_float32(x)
        squared = like(x.to(dtype).square(), x)  # with one channel the square has forgotten its memory format
        parameters = weight.variance.to(dtype), None if bias is None else bias.variance.to(dtype)
        with nullcontext() if torch.compiler.is_compiling() else _computed_again(squared, x):
            return mean, op(squared, *parameters)


@contextmanager
def _computed_again(squared: Tensor, x: Tensor) -> Iterator[None]:
    """Inside the ``with``, backward squares ``x`` again, which is kept anyway, where it would have kept the square."""

    def pack(saved: Tensor) -> Tensor | None:
        return None if saved.data_ptr() == address and saved.shape == x.shape else saved

    def unpack(packed: Tensor | None) -> Tensor:
        if packed is not None:
            return packed
        if x._version != version:  # autograd looks at what it has saved itself; here nothing was
            raise RuntimeError("the input of a layer with local noise was changed in place before its backward pass.")
        return like(x.detach().to(squared_dtype).square(), x)

    with ExitStack() as stack:
        if torch.is_grad_enabled():
            with suppress(RuntimeError):  # inside torch.func tensors have no address, or no hooks
                address, squared_dtype, version = squared.data_ptr(), squared.dtype, x._version
                stack.enter_context(torch.autograd.graph.saved_tensors_hooks(pack, unpack))
        yield
