"""Expectations under Gaussians by Gauss-Hermite quadrature, with their gradients in the same pass."""

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from bnn_lightning.core.kernels.function import Function

_NODES = 32
_BLOCK = 2**16  # elements of a block: its intermediate results fit into the CPU's cache


@lru_cache
def gauss_hermite(count: int) -> tuple[tuple[float, float], ...]:
    """Nodes z and weights p with E[f(z)] = sum of p f(z) under N(0, 1), exact for polynomials of degree 2 count - 1.

    The nodes are the eigenvalues of the Jacobi matrix of the Hermite polynomials, the weights the squares of the first
    components of its eigenvectors. Golub & Welsch 1969, "Calculation of Gauss quadrature rules".
    """
    off_diagonal = torch.arange(1, count, dtype=torch.float64, device="cpu").sqrt()
    nodes, vectors = torch.linalg.eigh(off_diagonal.diag(1) + off_diagonal.diag(-1))
    return tuple(zip(nodes.tolist(), vectors[0].square().tolist(), strict=True))


def mean_log1p_square(mu: Tensor, sigma: Tensor) -> Tensor:
    """E[log(1 + w^2)] for w ~ N(mu, sigma^2), element by element: what is not constant in the KL to Student's t.

    By quadrature with 32 nodes: the error is below 1e-5 for sigma up to 1. Autograd would keep several tensors for each
    node; this keeps the two derivatives.

    Args:
        mu: means, any shape.
        sigma: standard deviations, of the same shape.
    """
    return _MeanLog1pSquare.apply(mu, sigma)[0]


class _MeanLog1pSquare(Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(mu: Tensor, sigma: Tensor) -> tuple[Tensor, ...]:
        size = _BLOCK if mu.device.type == "cpu" else max(1, mu.numel())
        blocks = zip(mu.flatten().split(size), sigma.flatten().split(size), strict=True)
        results = zip(*(_value_and_derivatives(*block) for block in blocks), strict=True)
        return tuple(torch.cat(parts).view(mu.shape) for parts in results)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(*output[1:])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
        by_mu, by_sigma = ctx.saved_tensors
        return grad * by_mu, grad * by_sigma


def _value_and_derivatives(mu: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    value, by_mu, by_sigma = torch.zeros_like(mu), torch.zeros_like(mu), torch.zeros_like(mu)
    for node, weight in gauss_hermite(_NODES):
        w = torch.add(mu, sigma, alpha=node)
        one_and_square = w.square().add_(1)
        slope = w.div_(one_and_square).mul_(2)
        value.add_(one_and_square.log_(), alpha=weight)  # torch's log1p takes several times as long
        by_mu.add_(slope, alpha=weight)
        by_sigma.add_(slope, alpha=weight * node)
    return value, by_mu, by_sigma
