"""Parts of a joint posterior: random tensors that are correlated with each other, each with its marginal."""

from abc import abstractmethod
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from bnn_lightning.core.kernels.elementwise import at_least_float32
from bnn_lightning.core.kernels.noise import standard_normal_like
from bnn_lightning.core.posteriors.base import Posterior, shape_text


class Joint:
    """The identity of a joint posterior: random tensors that hold the same object are drawn together."""


class JointPart(Posterior):
    """A random tensor that is correlated with others.

    Mean, variance and :meth:`Posterior.sample` are those of its marginal.
    A joint draw is one :meth:`noise` for all parts of a :class:`Joint`, and :meth:`given` of each; see
    :func:`sample_together`. No part keeps what was drawn.

    Args:
        mu: initial means.
        joint: the same object for all parts.
    """

    is_factorised = False
    is_symmetric = False

    def __init__(self, mu: Tensor, joint: Joint):
        super().__init__()
        self.mu = nn.Parameter(mu)
        self.joint = joint

    @property
    def mean(self) -> Tensor:
        return self.mu

    @abstractmethod
    def noise(self) -> Tensor:
        """The noise that all parts share in one draw. Any part can draw it."""

    @abstractmethod
    def given(self, noise: Tensor) -> Tensor:
        """The draw of this tensor that belongs to the shared ``noise``; it may have further noise of its own."""

    def sample(self) -> Tensor:
        return sample_together([self])[0]

    def kl(self) -> Tensor:
        """The share of the joint's KL in nats: the shares of all parts sum to it. 0 where the KL is not minimised."""
        return torch.zeros((), dtype=at_least_float32(self.mu), device=self.mu.device)

    def extra_repr(self) -> str:
        return shape_text(self.mu)


class JointWeight(JointPart):
    """A part of a joint that knows, as the weight of a linear layer, the covariance of the layer's outputs."""

    @abstractmethod
    def output_factor(self, x: Tensor, bias: Any) -> Tensor:
        """F with Cov(x W^T + b) = F F^T for known inputs, where this is W: ``(batch, outputs, size)``.

        Args:
            x: ``(batch, features)``.
            bias: b, a part of the same joint; or None.
        """


def sample_together(posteriors: Iterable[Posterior]) -> list[Tensor]:
    """A draw of each random tensor, in their order, in which parts of one joint belong to one draw of it."""
    shared: dict[Joint, Tensor] = {}
    draws = []
    for posterior in posteriors:
        if not isinstance(posterior, JointPart):
            draws.append(posterior.sample())
            continue
        with torch.autocast(posterior.device.type, enabled=False):  # products of noise, of which rounding is seen
            if posterior.joint not in shared:
                shared[posterior.joint] = posterior.noise()
            draws.append(posterior.given(shared[posterior.joint]))
    return draws


class FactorPart(JointWeight):
    """w = mu + F eps with one eps ~ N(0, I) of ``size`` numbers for the joint: its covariance is F F^T.

    ``factor`` is a buffer ``(*shape, size)``: the rows of F that belong to this tensor, 0 until they are set.
    """

    factor: Tensor

    def __init__(self, mu: Tensor, joint: Joint, size: int):
        super().__init__(mu, joint)
        self.register_buffer("factor", mu.new_zeros(*mu.shape, size))

    @property
    def variance(self) -> Tensor:
        return self.factor.square().sum(-1)

    def output_factor(self, x: Tensor, bias: Any) -> Tensor:
        shared = torch.einsum("bi,ois->bos", x, self.factor)
        return shared if bias is None else shared + bias.factor

    def noise(self) -> Tensor:
        return standard_normal_like(self.factor.new_empty(self.factor.shape[-1]))

    def given(self, noise: Tensor) -> Tensor:
        return self.mu + self.factor @ noise


class KroneckerPart(JointWeight):
    """W = mu + L (S o E) R^T with one E ~ N(0, 1) of the shape of S, ``(outputs, columns)``, for the joint.

    With orthogonal L and R, the eigenvectors of two Kronecker factors, S^2 holds the eigenvalues of the covariance.
    ``left`` is L ``(outputs, outputs)``, ``scales`` is S and ``right`` the rows of R, ``(rows, columns)``, that belong
    to this tensor, whose elements are ``(outputs, rows)``; they are buffers, 0 until they are set.
    """

    left: Tensor
    scales: Tensor
    right: Tensor

    def __init__(self, mu: Tensor, joint: Joint, columns: int):
        super().__init__(mu, joint)
        outputs = len(mu)
        self.register_buffer("left", mu.new_zeros(outputs, outputs))
        self.register_buffer("scales", mu.new_zeros(outputs, columns))
        self.register_buffer("right", mu.new_zeros(mu[0].numel(), columns))

    @property
    def variance(self) -> Tensor:
        return (self.left.square() @ self.scales.square() @ self.right.square().T).view_as(self.mu)

    def output_factor(self, x: Tensor, bias: Any) -> Tensor:
        rows = x @ self.right if bias is None else x @ self.right + bias.right
        return self.left * (rows.square() @ self.scales.square().T).sqrt().unsqueeze(-2)

    def noise(self) -> Tensor:
        return standard_normal_like(self.scales)

    def given(self, noise: Tensor) -> Tensor:
        return self.mu + (self.left @ (self.scales * noise) @ self.right.T).view_as(self.mu)


class FixedWidth(Posterior):
    """w = mu + sigma eps for each element independently; ``sigma`` is a buffer, 0 until it is set, and not learnt."""

    sigma: Tensor

    def __init__(self, mu: Tensor):
        super().__init__()
        self.mu = nn.Parameter(mu)
        self.register_buffer("sigma", torch.zeros_like(mu))

    @property
    def mean(self) -> Tensor:
        return self.mu

    @property
    def variance(self) -> Tensor:
        return self.sigma.square()

    def sample(self) -> Tensor:
        return torch.addcmul(self.mu, self.sigma, standard_normal_like(self.mu))

    def kl(self) -> Tensor:
        return torch.zeros((), dtype=at_least_float32(self.mu), device=self.mu.device)

    def extra_repr(self) -> str:
        return shape_text(self.mu)
