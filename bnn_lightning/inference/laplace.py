"""Laplace: a Gaussian over the last layer of a trained network, from the curvature of its loss."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from bnn_lightning.core.conversion import bayesianize
from bnn_lightning.core.layers import BayesianLayer
from bnn_lightning.core.methods import DrawnTogether, Method
from bnn_lightning.core.ops.base import Op
from bnn_lightning.core.posteriors import FactorPart, FixedWidth, Joint, KroneckerPart, Posterior
from bnn_lightning.core.settings import check_positive, check_words
from bnn_lightning.core.whole_network import evaluating, sampling
from bnn_lightning.inference.base import Step, Terms
from bnn_lightning.inference.curvature import Curvature, Diagonal, Full, Kronecker
from bnn_lightning.inference.gradient_descent import GradientDescent
from bnn_lightning.inference.last_layer import (
    last_linear_layer,
    outputs_and_features,
    random_layer,
    refuse_choices,
    with_ones,
)
from bnn_lightning.likelihoods.base import Likelihood

Structure = Literal["full", "kron", "diag"]
_CURVATURES: dict[str, type[Curvature]] = {"full": Full, "kron": Kronecker, "diag": Diagonal}
_FINDINGS = ("log_marginal_likelihood", "prior_precision")
_LOG_PRECISIONS = (-30.0, 30.0)  # between which the best prior precision is looked for


@dataclass(frozen=True)
class Laplace(GradientDescent):
    """Trains a deterministic network by its nll; then gives its last layer the Gaussian that the curvature implies.

    q(w) = N(w_trained, T (H + delta I)^-1) for weight and bias of the last linear layer, with H the generalised
    Gauss-Newton matrix of the nll, summed over one pass of the training batches in eval mode, and delta the precision
    of a prior N(0, 1/delta). Daxberger et al. 2021 (arXiv:2106.14806). The mean is where training has ended, whatever
    penalty it had; all other layers stay deterministic.

    Args:
        lr: the learning rate; null takes the optimiser's default.
        optimizer: any class of torch.optim, or your own, with its settings.
        lr_schedule: LinearDecay, Cosine or Plateau; or any class of torch.optim.lr_scheduler, stepped once an epoch.
            null keeps the rate constant.
        structure: of H. full has all covariances; kron a Kronecker product, of outputs and of features; diag variances.
        layer: the name of the layer, which must give the network's outputs; null is the last linear layer.
        prior_precision: delta, over weights and bias; null is the one of highest marginal likelihood.
        temperature: T, by which the covariance is multiplied; below 1 the posterior is cold.
        max_gigabytes: of memory that forming the posterior may take.
    """

    brings_method = True
    fixed_in_a_run = ("lr", "optimizer", "structure", "layer")

    structure: Structure = "full"
    layer: str | None = None
    prior_precision: float | None = None
    temperature: float = 1.0
    max_gigabytes: float = 4.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_words(self)
        for name in ("prior_precision", "temperature", "max_gigabytes"):
            check_positive(name, getattr(self, name))

    def prepare(self, net: nn.Module, method: Method | None, only: str | list[str]) -> nn.Module:
        refuse_choices("Laplace", method, only)
        name, layer = last_linear_layer(net, self.layer)
        columns = layer.in_features + (layer.bias is not None)
        self._check_memory(name, layer.out_features, columns)
        net = bayesianize(net, _Laplace(self.structure, layer.out_features, columns), [name])
        head = random_layer(net)
        for finding in _FINDINGS:
            head.register_buffer(finding, layer.weight.new_zeros(()))
        return net

    def _check_memory(self, name: str, outputs: int, columns: int) -> None:
        gigabytes = {each: kind.num_bytes(outputs, columns) / 1e9 for each, kind in _CURVATURES.items()}
        if gigabytes[self.structure] > self.max_gigabytes:
            fitting = [each for each, size in gigabytes.items() if size <= self.max_gigabytes]
            cure = f"{fitting[0]} takes {gigabytes[fitting[0]]:.2g}" if fitting else "none is smaller than diag"
            raise ValueError(
                f"structure must be one that takes at most max_gigabytes, {self.max_gigabytes:g}, for {name} with "
                f"{outputs} outputs of {columns} weights, got {self.structure}, which takes "
                f"{gigabytes[self.structure]:.2g}; {cure}."
            )

    def loss(self, net: nn.Module, x: Tensor, y: Tensor, likelihood: Likelihood, step: Step) -> Terms:
        with sampling(net, False):
            outputs, _ = outputs_and_features(net, x)
        if step.step == 0:  # of a run that is made longer: what its first end has formed is not of these weights
            _forget(random_layer(net))
        if step.epoch == step.step == 0:
            likelihood.output_hessian(outputs[:1].detach(), y[:1])  # one without is refused before it is needed
        nll = likelihood.nll(outputs.unsqueeze(0), y)
        return Terms(nll, nll, torch.zeros_like(nll), 1.0, outputs.unsqueeze(0))

    @torch.no_grad()
    def after_fit(self, net: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], likelihood: Likelihood) -> None:
        layer = random_layer(net)
        method = layer.method
        assert isinstance(method, _Laplace)
        curvature = _CURVATURES[self.structure](method.outputs, method.columns, layer.weight.device)
        log_likelihood = curvature.zeros()
        with evaluating(net), sampling(net, False):
            for x, y in batches:
                outputs, features = outputs_and_features(net, x)

                def hessian(part: slice, outputs: Tensor = outputs, y: Tensor = y) -> Tensor:
                    return likelihood.output_hessian(outputs[part], y[part])[:, : method.outputs, : method.outputs]

                curvature.add(with_ones(features, layer), hessian)
                log_likelihood -= len(y) * likelihood.nll(outputs.unsqueeze(0), y).to(log_likelihood)
        curvature.sum_over_processes()
        if torch.distributed.is_initialized():
            torch.distributed.all_reduce(log_likelihood)
        eigenvalues = curvature.eigenvalues()
        squared_norm = sum(part.mean.double().square().sum().item() for part in layer.tensors().values())
        precision = self.prior_precision or best_precision(eigenvalues, squared_norm)
        curvature.fill(layer, lambda values: (self.temperature / (values + precision)).sqrt())
        evidence = log_likelihood.item() + log_occam_factor(eigenvalues, squared_norm, precision)
        layer.get_buffer("prior_precision").fill_(precision)
        layer.get_buffer("log_marginal_likelihood").fill_(evidence if likelihood.is_density else math.nan)

    def findings(self, net: nn.Module) -> dict[str, float]:
        layer = random_layer(net)
        if not layer.get_buffer("prior_precision"):  # a run that was stopped before its end
            return {}
        found = {name.replace("_", " "): layer.get_buffer(name).item() for name in _FINDINGS}
        return {name: value for name, value in found.items() if not math.isnan(value)}


@torch.no_grad()
def _forget(layer: BayesianLayer) -> None:
    for part in layer.tensors().values():
        for width in part.buffers():
            width.zero_()
    for finding in _FINDINGS:
        layer.get_buffer(finding).zero_()


def log_occam_factor(eigenvalues: Tensor, squared_norm: float, precision: float) -> float:
    """The log marginal likelihood minus the log likelihood at the mode, in nats, by Laplace's approximation.

    1/2 sum_i log(delta / (lambda_i + delta)) - delta |w|^2 / 2. MacKay 1992, "A practical Bayesian framework for
    backpropagation networks".

    Args:
        eigenvalues: lambda, of the GGN.
        squared_norm: |w|^2 at the mode.
        precision: delta, of the prior.
    """
    return -0.5 * (torch.log1p(eigenvalues / precision).sum().item() + precision * squared_norm)


def best_precision(eigenvalues: Tensor, squared_norm: float) -> float:
    """The prior precision of highest marginal likelihood: delta |w|^2 = sum_i lambda_i / (lambda_i + delta).

    The left side rises in delta and the right side falls, so that there is one solution, which bisection finds.
    """
    low, high = _LOG_PRECISIONS
    for _ in range(64):
        middle = 0.5 * (low + high)
        precision = math.exp(middle)
        is_below = precision * squared_norm < (eigenvalues / (eigenvalues + precision)).sum().item()
        low, high = (middle, high) if is_below else (low, middle)
    return math.exp(0.5 * (low + high))


@dataclass(frozen=True)
class _Laplace(DrawnTogether):
    """The method of the last layer, whose posterior :class:`Laplace` fills.

    Args:
        structure: of the covariance.
        outputs: of the layer.
        columns: of its weight and bias together.
        joint: of weight and bias.
    """

    objective = "likelihood"

    structure: Structure
    outputs: int
    columns: int
    joint: Joint = field(default_factory=Joint, repr=False, compare=False)

    def weight(self, init: Tensor, op: Op) -> Posterior:
        return self.bias(init)

    def bias(self, init: Tensor) -> Posterior:
        init = init.detach().clone()
        if self.structure == "full":
            return FactorPart(init, self.joint, self.outputs * self.columns)
        if self.structure == "kron":
            return KroneckerPart(init, self.joint, self.columns)
        return FixedWidth(init)
