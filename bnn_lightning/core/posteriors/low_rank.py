"""LowRank, the Gaussian posterior whose standard deviations are a matrix of low rank."""

import math

import torch
from torch import Tensor, nn

from bnn_lightning.core.kernels.elementwise import at_least_float32
from bnn_lightning.core.kernels.noise import standard_normal_like
from bnn_lightning.core.kernels.softplus import log_softplus
from bnn_lightning.core.posteriors.base import shape_text
from bnn_lightning.core.posteriors.with_prior import WithPrior
from bnn_lightning.core.priors import Prior

_SPREAD = 0.1  # std of the initial log u and log v: terms of the sum that began equal would stay equal


class LowRank(WithPrior):
    """q(w) = N(mu, sigma^2) for each element independently, with sigma_ij = sum over k of u_ik v_kj, all positive.

    The k-tied normal of Swiatkowski et al. 2020 (arXiv:2002.02655). i is the first axis of a weight, j all others
    together: outputs and fan-in of linear layers and convolutions (of transposed convolutions and embeddings the first
    axis is that of the inputs). A weight has rank * (outputs + fan-in) width parameters, where :class:`Gaussian` has
    outputs * fan-in. log u and log v are learnt. Vectors, such as biases, have a sigma = exp(log_sigma) for each
    element.

    Args:
        mu: initial means.
        rho: rho of the initial sigma = softplus(rho), of the same shape; u and v begin as its means over rows and
            columns in logarithms, times noise of 10 %.
        prior: the prior of this tensor, a dataclass.
        rank: number of terms of the sum; the authors find 2 enough.
    """

    def __init__(self, mu: Tensor, rho: Tensor, prior: Prior, rank: int = 2):
        if rank < 1:
            raise ValueError(f"rank must be 1 or more, got {rank}.")
        super().__init__(mu, prior)
        log_sigma = log_softplus(rho)
        if mu.dim() < 2:
            self.log_sigma = nn.Parameter(log_sigma)
            return
        rows, columns = log_sigma.flatten(1).mean(1, keepdim=True), log_sigma.flatten(1).mean(0, keepdim=True)
        # Half of what both share, the mean over the matrix and the number of terms, goes to each.
        shared = 0.5 * (log_sigma.mean() + math.log(rank))
        self.log_u = nn.Parameter(rows - shared + _SPREAD * torch.randn_like(rows.expand(-1, rank)))
        self.log_v = nn.Parameter(columns - shared + _SPREAD * torch.randn_like(columns.expand(rank, -1)))

    @property
    def width_parameters(self) -> tuple[str, ...]:
        return ("log_sigma",) if self.mu.dim() < 2 else ("log_u", "log_v")

    def _log_sigma(self, dtype: torch.dtype) -> Tensor:
        """Log sigma of each element, in the shape of the tensor."""
        if self.mu.dim() < 2:
            return self.log_sigma.to(dtype)
        log_u, log_v = self.log_u.to(dtype), self.log_v.to(dtype)
        # Of the largest terms 1 is left, so that neither sigma nor its logarithm underflows.
        largest_u, largest_v = log_u.detach().amax(1, keepdim=True), log_v.detach().amax(0, keepdim=True)
        with torch.autocast(self.mu.device.type, enabled=False):
            terms = (log_u - largest_u).exp() @ (log_v - largest_v).exp()
        return (terms.log() + largest_u + largest_v).view_as(self.mu)

    @property
    def sigma(self) -> Tensor:
        """The standard deviation of each element."""
        return self._log_sigma(at_least_float32(self.mu)).exp().to(self.mu.dtype)

    @property
    def variance(self) -> Tensor:
        return (2 * self._log_sigma(at_least_float32(self.mu))).exp()  # half precision rounds variances to 0

    def sample(self) -> Tensor:
        return torch.addcmul(self.mu, self.sigma, standard_normal_like(self.mu))

    def log_alpha(self) -> Tensor:
        dtype = at_least_float32(self.mu)
        return 2 * (self._log_sigma(dtype) - self.mu.to(dtype).abs().log())

    def kl(self) -> Tensor:
        log_sigma = self._log_sigma(at_least_float32(self.mu))
        return self.prior.kl(self.mu.to(log_sigma.dtype), log_sigma.exp(), log_sigma)

    def extra_repr(self) -> str:
        rank = "" if self.mu.dim() < 2 else f"rank {self.log_v.shape[0]}, "
        return f"{shape_text(self.mu)}, {rank}{self._prior_text()}"
