"""Mean and variance of a layer's outputs under independent random weights, for local reparameterisation."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress

import torch
from torch import Tensor

from bnn_lightning.core.kernels.compiling import are_small
from bnn_lightning.core.kernels.elementwise import at_least_float32
from bnn_lightning.core.kernels.memory import in_format_of
from bnn_lightning.core.ops.base import Op
from bnn_lightning.core.posteriors.base import Posterior


def moments(op: Op, x: Tensor, weight: Posterior, bias: Posterior | None) -> tuple[Tensor, Tensor]:
    """Mean m and variance v of each output of ``op`` under independent random weights.

    m = op(x, mean of w, mean of b), v = op(x^2, variance of w, variance of b). Kingma et al. 2015 (arXiv:1506.02557),
    section 2.3. The mean has the dtype of ``op``, the variance at least float32. Shapes are those of the outputs.
    """
    mean = op(x, weight.mean, None if bias is None else bias.mean)
    # Variances of weights are about 1e-5, which half precision rounds to 8 bits or to 0: no autocast here.
    with torch.autocast(x.device.type, enabled=False):
        dtype = at_least_float32(x)
        squared = in_format_of(x.to(dtype).square(), x)  # of one-channel images square() loses the memory format
        parameters = weight.variance.to(dtype), None if bias is None else bias.variance.to(dtype)
        with nullcontext() if torch.compiler.is_compiling() or are_small(x) else _recomputing_square(squared, x):
            return mean, op(squared, *parameters)


@contextmanager
def _recomputing_square(squared: Tensor, x: Tensor) -> Iterator[None]:
    """Inside the ``with``, autograd does not keep ``squared``: backward squares ``x`` again, which is kept anyway.

    This saves the memory of one tensor of the layer's input for each layer.
    """

    def pack(saved: Tensor) -> Tensor | None:
        return None if saved.data_ptr() == address and saved.shape == x.shape else saved

    def unpack(packed: Tensor | None) -> Tensor:
        if packed is not None:
            return packed
        if x._version != version:  # autograd checks tensors that it has saved itself; this one it has not
            raise RuntimeError("the input of a layer with local noise was changed in place before its backward pass.")
        return in_format_of(x.detach().to(squared_dtype).square(), x)

    with ExitStack() as stack:
        if torch.is_grad_enabled():
            with suppress(RuntimeError):  # inside torch.func tensors have no address, and hooks are not allowed
                address, squared_dtype, version = squared.data_ptr(), squared.dtype, x._version
                stack.enter_context(torch.autograd.graph.saved_tensors_hooks(pack, unpack))
        yield
