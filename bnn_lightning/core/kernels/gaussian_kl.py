"""The KL divergence between Gaussians: element by element, and summed over many tensors together with its gradients."""

from collections.abc import Iterator, Sequence
from itertools import repeat
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from bnn_lightning.core.kernels.compiling import are_small, fused, is_compiling
from bnn_lightning.core.kernels.function import Function
from bnn_lightning.core.kernels.memory import flatten_in_memory_order, in_format_of, unflatten_like
from bnn_lightning.core.kernels.softplus import LOG_SIGMA_IS_RHO, log_softplus, plain_softplus, softplus

_BLOCK = 2**16  # elements of a block: its intermediate results fit into the CPU's cache


def gaussian_kl(
    mu: Tensor, sigma: Tensor, prior_mu: Tensor, prior_sigma: Tensor, log_sigma: Tensor | None = None
) -> Tensor:
    """KL(N(mu, sigma^2) || N(prior_mu, prior_sigma^2)), element by element, in nats.

    log(s / sigma) + (sigma^2 + (mu - m)^2) / (2 s^2) - 1/2 for a prior N(m, s^2). The posterior is the first argument
    of the KL, as in the ELBO; the reverse KL(prior || posterior) goes to infinity as sigma goes to 0.

    Args:
        mu, sigma: mean and standard deviation of the posterior, any shape.
        prior_mu, prior_sigma: those of the prior, in shapes that broadcast to ``mu``.
        log_sigma: log(sigma), if it is known more precisely than the logarithm of ``sigma``.
    """
    if log_sigma is None:
        log_sigma = sigma.log()
    return (
        prior_sigma.log() - log_sigma + (sigma.square() + (mu - prior_mu).square()) / (2 * prior_sigma.square()) - 0.5
    )


def summed_gaussian_kl(tensors: Sequence[Sequence[Tensor]]) -> Tensor:
    """The sum of :func:`gaussian_kl` over all elements of many tensors, with sigma = softplus(rho): a scalar.

    Args:
        tensors: mu, rho, prior_mu and prior_sigma of each, in ascending size, all of one dtype and device; the last two
            in shapes that broadcast to mu.
    """
    if are_small(*(mu for mu, *_ in tensors)):
        mu, rho, prior_mu, prior_sigma = (
            torch.cat([arguments[k].expand_as(arguments[0]).reshape(-1) for arguments in tensors]) for k in range(4)
        )
        return gaussian_kl(mu, softplus(rho), prior_mu, prior_sigma, log_softplus(rho)).sum()
    return _GaussianKL.apply(len(tensors), *(arguments[k] for k in range(4) for arguments in tensors))[0]


class _GaussianKL(Function):
    """:func:`summed_gaussian_kl` with gradients that are computed in the same pass over memory as the value.

    ``apply(count, *tensors)`` takes ``count`` means, then as many rho, prior means and prior standard deviations, the
    last two in shapes that broadcast to the means; it returns the KL and the gradients in mu and rho.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(count: int, *tensors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        total = sum(mu.numel() for mu in tensors[:count])
        grad_mu, grad_rho = tensors[0].new_empty(total), tensors[0].new_empty(total)
        block_kls, start = [], 0
        for block in _blocks(list(zip(*(tensors[k * count : (k + 1) * count] for k in range(4)), strict=True))):
            block_kl, *gradients = fused(_kl_and_gradients)(*block)
            block_kls.append(block_kl)
            stop = start + len(gradients[0])
            grad_mu[start:stop], grad_rho[start:stop] = gradients
            start = stop
        return torch.stack(block_kls).sum(), grad_mu, grad_rho

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(*output[1:], *inputs[1 : 1 + inputs[0]])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        grad_mu, grad_rho, *means = ctx.saved_tensors
        sizes = [mean.numel() for mean in means]
        gradients = [
            unflatten_like(flat_gradient, mean)
            for flat_gradients in (grad_mu, grad_rho)
            for flat_gradient, mean in zip((grad * flat_gradients).split(sizes), means, strict=True)
        ]
        return None, *gradients, *(None for _ in range(2 * len(means)))


def _blocks(tensors: Sequence[tuple[Tensor, ...]]) -> Iterator[tuple[Tensor, ...]]:
    """Flat arguments ``(mu, rho, prior_mu, prior_sigma)`` of :func:`_kl_and_gradients`.

    The first block has all tensors of fewer than ``_BLOCK`` elements, which are the first of ``tensors``; each larger
    tensor is split into blocks. Priors of large tensors stay scalars where they are scalars.
    """
    small = [arguments for arguments in tensors if arguments[0].numel() < _BLOCK]
    if small:
        yield tuple(
            torch.cat(
                [
                    flatten_in_memory_order(in_format_of(arguments[k].expand_as(arguments[0]), arguments[0]))
                    for arguments in small
                ]
            )
            for k in range(4)
        )
    for mu, *others in tensors[len(small) :]:
        size = _BLOCK if mu.device.type == "cpu" and not is_compiling() else mu.numel()
        flat_arguments = [
            x if x.dim() == 0 else flatten_in_memory_order(in_format_of(x.expand_as(mu), mu)) for x in (mu, *others)
        ]
        yield from zip(
            *(repeat(x, -(-mu.numel() // size)) if x.dim() == 0 else x.split(size) for x in flat_arguments), strict=True
        )


def _kl_and_gradients(mu: Tensor, rho: Tensor, prior_mu: Tensor, prior_sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    clamped_rho = rho.clamp_min(LOG_SIGMA_IS_RHO)
    sigma = plain_softplus(clamped_rho)
    log_sigma = sigma.log().add_((rho - LOG_SIGMA_IS_RHO).clamp_max_(0))
    kl = gaussian_kl(mu, sigma, prior_mu, prior_sigma, log_sigma).sum()
    precision = prior_sigma.square().reciprocal_()
    # d log sigma / d rho = sigmoid / sigma, which is 1 where both would underflow.
    grad_rho = sigma.square().mul_(precision).sub_(1).mul_(clamped_rho.sigmoid_().div_(sigma))
    return kl, (mu - prior_mu).mul_(precision), grad_rho
