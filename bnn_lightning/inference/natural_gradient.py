"""IVONOptimizer: natural-gradient steps for Gaussian posteriors, in plain PyTorch too."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.adam import adam

from bnn_lightning.core.kernels.elementwise import at_least_float32
from bnn_lightning.core.kernels.softplus import inverse_softplus
from bnn_lightning.core.posteriors import Gaussian
from bnn_lightning.core.priors import Normal
from bnn_lightning.core.whole_network import random_tensors

SIGMA0_OF_PRIOR = 0.05  # the initial sigma, as a fraction of the prior's
SIGMA0_OF_HE = 0.2  # and at most this fraction of the std of He-normal weights: noise is then 4 % of a unit's variance
MEMORY_OF_CURVATURE = 0.5  # the time constant of the curvature's average, as a fraction of the run


class IVONOptimizer(Optimizer):
    """Improved variational online Newton: learns mean and standard deviation of Gaussian posteriors.

    The loss is the mean NLL of a batch alone, from a forward pass that draws noise: the KL is in the step. With its
    gradients g = dl/dmu and dl/dsigma, which any reparameterised forward pass gives, lambda = N / temperature, and the
    prior N(m, s^2),

    - the curvature estimate is h = (dl/dsigma) / sigma, whose expectation is that of d^2 l / dw^2;
    - u = (1 - beta2) ((lambda h + 1/s^2) sigma^2 - 1), and the precision 1/sigma^2 is multiplied by 1 + u + u^2 / 2,
      which is positive for every h;
    - mu moves by -lr (mean of g + (mu - m) / (lambda s^2)) lambda sigma^2, the mean of g being that of momentum with
      its bias correction, and each element of what lr multiplies is bounded by ``clip``.

    Shen et al. 2024 (arXiv:2402.17641), algorithm 1, with 1/sigma^2 = lambda (h + delta), delta = 1 / (lambda s^2). It
    minimises nll + temperature * KL/N.

    Parameters of the network that are not random are moved by Adam at the rate ``plain_lr``; those that are frozen, and
    those without a gradient, stay. Several samples or batches may add their gradients up to their mean before a step.

    Args:
        net: a network whose random tensors are :class:`~bnn_lightning.Gaussian` with a normal prior, each element with
            a mean and a standard deviation of its own.
        num_train: N, the number of distinct training examples.
        steps: of the whole run, on which the warm-up and the default of ``beta2`` depend; None if it becomes known
            later, and is put into ``param_groups[0]["steps"]`` before the first step.
        lr: the learning rate of mu.
        beta1: of the momentum.
        beta2: of the precision; None is 1 - 2 / steps, an average over half of the run.
        h0: the initial curvature h, from which sigma begins at 1 / sqrt(lambda h0 + 1/s^2). None begins at
            1/20 of the prior's sigma, or at a fifth of sqrt(2 / fan-in) where that is less.
        clip: bound on each element of the step before it is multiplied by lr.
        temperature: 1 is the ELBO; less gives a cold posterior.
        warmup: the fraction of the steps over which the learning rates rise from 0.
        plain_lr: the learning rate of parameters that are not random.

    Raises:
        ValueError: when a random tensor is of another family or has another prior, or nothing is to be trained.
    """

    def __init__(
        self,
        net: nn.Module,
        num_train: int,
        steps: int | None,
        lr: float = 0.1,
        beta1: float = 0.9,
        beta2: float | None = None,
        h0: float | None = None,
        clip: float = 0.02,
        temperature: float = 1.0,
        warmup: float = 0.05,
        plain_lr: float = 0.001,
    ):
        check_posteriors(net)
        self.posteriors: list[Any] = [part for _, part in random_tensors(net) if part.mean.requires_grad]
        widths_and_means = [parameter for part in self.posteriors for parameter in (part.mu, part.rho)]
        known = {id(parameter) for parameter in widths_and_means}
        others = [each for each in net.parameters() if each.requires_grad and id(each) not in known]
        for name, part in random_tensors(net):
            if part.mu.requires_grad != part.rho.requires_grad:
                frozen = "rho" if part.mu.requires_grad else "mu"
                raise ValueError(
                    f"net must train mu and rho of a tensor together for IVON, got a frozen {frozen} of {name}; freeze "
                    "both, or use Variational."
                )
        if not widths_and_means:
            raise ValueError("net must have random weights to train, got one without, or all of them frozen.")
        groups: list[dict[str, Any]] = [{"params": widths_and_means, "lr": lr}]
        if others:
            groups.append({"params": others, "lr": plain_lr})
        shared = {"beta1": beta1, "beta2": beta2, "clip": clip, "effective_size": num_train / temperature}
        super().__init__(groups, shared | {"warmup": warmup, "steps": steps})
        for part in self.posteriors:
            precision = self._initial_precision(part, h0)
            momentum = torch.zeros_like(precision)
            self.state[part.mu] = {"step": 0, "momentum": momentum, "precision": precision}
        self._set_widths()

    def _initial_precision(self, part: Any, h0: float | None) -> Tensor:
        mu = part.mu.detach()
        prior_sigma = part.prior.sigma.to(at_least_float32(mu))
        if h0 is not None:
            precision = self.defaults["effective_size"] * h0 + prior_sigma.square().reciprocal()
        else:
            he = math.sqrt(2 / mu[0].numel()) if mu.dim() > 1 else math.inf
            precision = (SIGMA0_OF_PRIOR * prior_sigma).clamp_max(SIGMA0_OF_HE * he).square().reciprocal()
        # In the memory format of the means: where they differ, a step takes up to a third longer (3 x 3 kernels).
        return torch.empty_like(mu, dtype=precision.dtype).copy_(precision)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        for number, parameter in enumerate(each for group in self.param_groups for each in group["params"]):
            # torch casts state to the parameter's type; in half precision small changes of the precision would vanish.
            for name, value in state_dict["state"].get(number, {}).items():
                if isinstance(value, Tensor) and name in ("momentum", "precision"):
                    self.state[parameter][name] = value.detach().clone().to(parameter.device)
        self._set_widths()

    @torch.no_grad()
    def _set_widths(self) -> None:
        """Sets all rho to the precisions of the state."""
        for part in self.posteriors:
            part.rho.copy_(inverse_softplus(self.state[part.mu]["precision"].rsqrt()))

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """One step from the gradients of the mean NLL.

        Args:
            closure: computes the loss and its gradients anew; or None.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        steps = self.param_groups[0]["steps"]
        if steps is None:
            raise ValueError(
                "steps must be the number of steps of the run, known before the first step, got None; give "
                "IVONOptimizer steps=, or set param_groups[0]['steps']."
            )
        beta2 = self.param_groups[0]["beta2"]
        beta2 = 1 - min(1.0, 1 / (MEMORY_OF_CURVATURE * steps)) if beta2 is None else beta2
        for part in self.posteriors:
            if part.mu.grad is not None:
                self._newton_step(part, self.param_groups[0], beta2)
        if len(self.param_groups) > 1:
            self._adam_step(self.param_groups[1])
        return loss

    def _newton_step(self, part: Any, group: dict[str, Any], beta2: float) -> None:
        if part.rho.grad is None:
            raise ValueError("net must draw its weights in the forward pass of a training step, got mean weights.")
        state, prior = self.state[part.mu], part.prior
        state["step"] += 1
        precision, momentum, size = state["precision"], state["momentum"], group["effective_size"]
        prior_precision = prior.sigma.to(precision.dtype).square().reciprocal()
        grad_mu, grad_rho = (parameter.grad.to(precision.dtype) for parameter in (part.mu, part.rho))
        sigma = precision.rsqrt()
        momentum.lerp_(grad_mu, 1 - group["beta1"])
        # The slope of softplus at rho is 1 - exp(-sigma).
        u = grad_rho.div(torch.expm1(-sigma)).mul_(-size).addcmul_(sigma, prior_precision).mul_(sigma)
        u.sub_(1).mul_(1 - beta2)
        precision.mul_(u.square().mul_(0.5).add_(u).add_(1))
        shift = part.mu.to(precision.dtype).sub(prior.mu).mul_(prior_precision)
        direction = shift.add_(momentum, alpha=size / (1 - group["beta1"] ** state["step"])).div_(precision)
        part.mu.sub_(direction.clamp_(-group["clip"], group["clip"]).mul_(self._rate(group, state["step"])))
        part.rho.copy_(inverse_softplus(torch.rsqrt(precision, out=sigma)))

    def _adam_step(self, group: dict[str, Any]) -> None:
        trained = [each for each in group["params"] if each.grad is not None]
        if not trained:
            return
        for each in trained:
            if not self.state[each]:
                zeros = (torch.zeros_like(each), torch.zeros_like(each), torch.zeros(()))
                self.state[each] = dict(zip(("exp_avg", "exp_avg_sq", "step"), zeros, strict=True))
        states = [self.state[each] for each in trained]
        averages, squares, steps = ([state[key] for state in states] for key in ("exp_avg", "exp_avg_sq", "step"))
        adam(
            trained,
            [each.grad for each in trained],
            averages,
            squares,
            [],
            steps,
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=self._rate(group, int(steps[0]) + 1),
            weight_decay=0.0,
            eps=1e-8,
            maximize=False,
        )

    def _rate(self, group: dict[str, Any], step: int) -> float:
        """The learning rate of a step, from 1."""
        return group["lr"] * min(1.0, step / max(group["warmup"] * self.param_groups[0]["steps"], 1.0))


def check_posteriors(net: nn.Module) -> None:
    """Checks that :class:`IVONOptimizer` can learn the posteriors of ``net``.

    Raises:
        ValueError: when a random tensor is no Gaussian with a normal prior.
    """
    for name, part in random_tensors(net):
        if type(part) is not Gaussian:
            raise ValueError(
                f"method must be BBB, Flipout or LRT with its own Gaussian posterior for IVON, got a "
                f"{type(part).__name__} for {name}."
            )
        if type(part.prior) is not Normal:  # one derived from it may have another density
            raise ValueError(f"prior must be normal for IVON, got {type(part.prior).__name__}; use Variational.")
