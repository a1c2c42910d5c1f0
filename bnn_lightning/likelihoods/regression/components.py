"""Standard normal and Student-t densities, distribution functions and quantiles, of tensors of any shape.

The degrees of freedom ``dfs`` are a tensor that broadcasts to ``z``; None stands for the normal distribution.
"""

import math

import torch
from torch import Tensor

_MANY = 100  # degrees of freedom, above which single precision loses digits of the difference of two lgamma


def log_density(z: Tensor, dfs: Tensor | None) -> Tensor:
    """Log p(z); differentiable in both."""
    if dfs is None:
        return -0.5 * (z.square() + math.log(2 * math.pi))
    return _log_norm(dfs) - (dfs + 1) / 2 * torch.log1p(z.square() / dfs)


def _log_norm(dfs: Tensor) -> Tensor:
    """Log Gamma((df + 1) / 2) - log Gamma(df / 2) - log(pi df) / 2.

    For many degrees of freedom by Stirling's series, where the first two cancel: it is off by 1 / (20 df^5).
    """
    few = torch.lgamma((dfs + 1) / 2) - torch.lgamma(dfs / 2) - 0.5 * torch.log(math.pi * dfs)
    many = -0.5 * math.log(2 * math.pi) - 1 / (4 * dfs) + 1 / (24 * dfs**3)
    return torch.where(dfs > _MANY, many, few)


def distribution(z: Tensor, dfs: Tensor | None) -> Tensor:
    """P(Z <= z)."""
    if dfs is None:
        return torch.special.ndtr(z)
    from scipy.special import stdtr  # torch has no incomplete beta function; only test and predict come here

    return torch.as_tensor(stdtr(dfs.cpu().numpy(), z.cpu().numpy())).to(z)


def quantile(level: float, dfs: Tensor | None, like: Tensor) -> Tensor:
    """The z with P(Z <= z) = level: a scalar, or of the shape of ``dfs``; with dtype and device of ``like``."""
    if dfs is None:
        return torch.special.ndtri(like.new_tensor(level))
    from scipy.special import stdtrit

    return torch.as_tensor(stdtrit(dfs.cpu().numpy(), level)).to(like)


def variance(dfs: Tensor | None) -> Tensor | float:
    """Var(Z): 1, or df / (df - 2), which is finite above two degrees of freedom."""
    return 1.0 if dfs is None else dfs / (dfs - 2)


def mean_distance(z: Tensor, dfs: Tensor | None) -> Tensor:
    """E|Z - z|. Grimit et al. 2006; for Student's t Jordan, Krueger & Lerch 2019 (arXiv:1709.04743)."""
    density = log_density(z, dfs).exp()
    spread = 1.0 if dfs is None else (dfs + z.square()) / (dfs - 1)
    return z * (2 * distribution(z, dfs) - 1) + 2 * spread * density
