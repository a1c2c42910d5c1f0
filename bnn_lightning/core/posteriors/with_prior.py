"""WithPrior, what posteriors share that have a mean for each element and a prior of this package's kind."""

from abc import ABC
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from bnn_lightning.core.posteriors.base import Posterior
from bnn_lightning.core.priors import Normal, Prior


class WithPrior(Posterior, ABC):
    """A posterior whose means are the parameter ``mu``, and whose prior goes with it to its device and checkpoint.

    Tensors of the prior are buffers named ``prior_...``; mean and standard deviation of a normal prior become tensors,
    also if they are numbers.

    Args:
        mu: initial means.
        prior: the prior of this tensor, a dataclass.
    """

    def __init__(self, mu: Tensor, prior: Prior):
        super().__init__()
        self.mu = nn.Parameter(mu)
        self._has_normal_prior = type(prior) is Normal
        self._prior = prior
        self._prior_tensors = []
        for name in (field.name for field in fields(prior)):
            value = getattr(prior, name)
            if self._has_normal_prior:
                value = torch.as_tensor(value, dtype=mu.dtype, device=mu.device)
            if isinstance(value, Tensor):
                self.register_buffer(f"prior_{name}", value.detach().clone())  # not the caller's, nor another layer's
                self._prior_tensors.append(name)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        # Earlier releases saved mean and sigma of a normal prior beside every other prior too.
        for name in {"mu", "sigma"} - set(self._prior_tensors):
            state_dict.pop(f"{prefix}prior_{name}", None)
        # A tensor may have a prior for each element there, and one for all here: of a network that began from weights.
        for name in self._prior_tensors:
            saved = state_dict.get(f"{prefix}prior_{name}", self.get_buffer(f"prior_{name}"))
            if saved.shape != self.get_buffer(f"prior_{name}").shape and saved.shape in ((), self.mu.shape):
                self.register_buffer(f"prior_{name}", torch.empty_like(saved, device=self.mu.device))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    @property
    def prior(self) -> Prior:
        """The prior with the current tensors: on this module's device, and as its checkpoint has set them."""
        return replace(self._prior, **{name: getattr(self, f"prior_{name}") for name in self._prior_tensors})

    @property
    def mean(self) -> Tensor:
        return self.mu

    def _prior_text(self) -> str:
        """The prior in the description of the module."""
        if not self._has_normal_prior:
            return repr(self._prior)
        sigma = self.get_buffer("prior_sigma")
        return f"prior_sigma={sigma.item():.4g}" if sigma.numel() == 1 else "a prior for each element"
