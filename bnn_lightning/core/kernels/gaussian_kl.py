"""The KL between Gaussians summed over many tensors, with all gradients formed in the same pass."""

from collections.abc import Iterator, Sequence
from itertools import repeat
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from bnn_lightning.core.kernels.compiling import fused, is_compiling
from bnn_lightning.core.kernels.memory import flat, like, shaped
from bnn_lightning.core.kernels.softplus import LOG_SIGMA_IS_RHO, plain_softplus

_BLOCK = 2**16  # numbers: what the KL makes of them on the way stays in the cache


def gaussian_kl(
    mu: Tensor, sigma: Tensor, prior_mu: Tensor, prior_sigma: Tensor, log_sigma: Tensor | None = None
) -> Tensor:
    """KL(N(mu, sigma^2) || N(prior_mu, prior_sigma^2)), element by element, in nats.

    log(s / sigma) + (sigma^2 + (mu - m)^2) / (2 s^2) - 1/2 for a prior N(m, s^2). The posterior comes first: the other
    direction is mass-covering, explodes as sigma goes to 0 and is not the term of the ELBO.

    ``log_sigma`` may be given where it is known more exactly than the logarithm of ``sigma``.
    """
    if log_sigma is None:
        log_sigma = sigma.log()
    return (
        prior_sigma.log() - log_sigma + (sigma.square() + (mu - prior_mu).square()) / (2 * prior_sigma.square()) - 0.5
    )


class GaussianKL(torch.autograd.Function):
    """The sum of :func:`gaussian_kl` over tensors, with all gradients formed in the same pass.

    Takes ``count`` means, as many rho, prior means and prior standard deviations, whose shapes are the means'.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(count: int, *tensors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        total = sum(mu.numel() for mu in tensors[:count])
        in_mu, in_rho = tensors[0].new_empty(total), tensors[0].new_empty(total)
        kls, start = [], 0
        for piece in _pieces(list(zip(*(tensors[k * count : (k + 1) * count] for k in range(4)), strict=True))):
            part, *gradients = fused(_kl_and_gradients)(*piece)
            kls.append(part)
            stop = start + len(gradients[0])
            in_mu[start:stop], in_rho[start:stop] = gradients
            start = stop
        return torch.stack(kls).sum(), in_mu, in_rho

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(*output[1:], *inputs[1 : 1 + inputs[0]])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        in_mu, in_rho, *means = ctx.saved_tensors
        sizes = [mean.numel() for mean in means]
        gradients = [
            shaped(part, mean)
            for total in (in_mu, in_rho)
            for part, mean in zip((grad * total).split(sizes), means, strict=True)
        ]
        return None, *gradients, *(None for _ in range(2 * len(means)))


def _pieces(tensors: Sequence[tuple[Tensor, ...]]) -> Iterator[tuple[Tensor, ...]]:
    """What goes through :func:`_kl_and_gradients` at once: all small tensors, then the others, in blocks for the cache.

    ``tensors`` has the small ones first. Priors stay one number where that is all they are, for large tensors.
    """
    small = [four for four in tensors if four[0].numel() < _BLOCK]
    if small:
        yield tuple(torch.cat([flat(like(four[k].expand_as(four[0]), four[0])) for four in small]) for k in range(4))
    for mu, *others in tensors[len(small) :]:
        size = _BLOCK if mu.device.type == "cpu" and not is_compiling() else mu.numel()
        parts = [x if x.dim() == 0 else flat(like(x.expand_as(mu), mu)) for x in (mu, *others)]
        yield from zip(
            *(repeat(x, -(-mu.numel() // size)) if x.dim() == 0 else x.split(size) for x in parts), strict=True
        )


def _kl_and_gradients(mu: Tensor, rho: Tensor, prior_mu: Tensor, prior_sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    within = rho.clamp_min(LOG_SIGMA_IS_RHO)
    sigma = plain_softplus(within)
    log_sigma = sigma.log().add_((rho - LOG_SIGMA_IS_RHO).clamp_max_(0))
    kl = gaussian_kl(mu, sigma, prior_mu, prior_sigma, log_sigma).sum()
    precision = prior_sigma.square().reciprocal_()
    # d log sigma / d rho = sigmoid / sigma, which is 1 where both would underflow.
    in_rho = sigma.square().mul_(precision).sub_(1).mul_(within.sigmoid_().div_(sigma))
    return kl, (mu - prior_mu).mul_(precision), in_rho
