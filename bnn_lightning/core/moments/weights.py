"""Moment rules of linear layers and convolutions, whose weights are random under a method, or plain."""

import copy
from typing import Any, Self

import torch
from torch import Tensor, nn

from bnn_lightning.core.kernels.elementwise import at_least_float32
from bnn_lightning.core.kernels.memory import channels_last
from bnn_lightning.core.layers import BayesianLayer
from bnn_lightning.core.moments.rules import Moments, MomentsError, called
from bnn_lightning.core.ops import op_of
from bnn_lightning.core.ops.linear import LinearOp
from bnn_lightning.core.posteriors import JointWeight, Multiplicative, Posterior, Rank1Weight
from bnn_lightning.core.posteriors.moments import moments


class FixedMoments(nn.Module):
    """Mean and variance of a random tensor as buffers, computed once; what :func:`moments` reads of a posterior."""

    mean: Tensor
    variance: Tensor

    def __init__(self, mean: Tensor, variance: Tensor):
        super().__init__()
        mean = mean.detach().to(at_least_float32(mean))
        variance = variance.detach().to(mean.dtype).expand_as(mean)
        self.register_buffer("mean", channels_last(mean).clone(), persistent=False)
        self.register_buffer("variance", channels_last(variance).clone(), persistent=False)

    @classmethod
    def of(cls, posterior: Posterior, name: str) -> Self:
        """Those of a posterior.

        Raises:
            MomentsError: when it has no variance.
        """
        if not posterior.has_variance:
            raise MomentsError(f"a network whose {name} has weights without a variance")
        return cls(posterior.mean, posterior.variance)


class RandomWeights(nn.Module):
    """op(x, W) + b with independent weights: m' = op(m; E W, E b), v' = op(m^2 + v; Var W, Var b) + op(v; (E W)^2).

    Wang & Manning 2013, "Fast dropout training"; Wu et al. 2019 (arXiv:1810.03958), section 3. Exact for independent
    inputs and weights. Weights that are correlated count as independent, with their own variances; but see
    :class:`JointWeights`.

    Args:
        op: the layer's arithmetic.
        weight: its moments.
        bias: likewise, or None.
    """

    squared_mean: Tensor

    def __init__(self, op: Any, weight: FixedMoments, bias: FixedMoments | None):
        super().__init__()
        self.op, self.weight, self.bias = op, weight, bias
        self.register_buffer("squared_mean", weight.mean.square(), persistent=False)

    @property
    def matrix(self) -> Tensor:
        """E W."""
        return self.weight.mean

    def forward(self, x: Tensor | Moments) -> Moments:
        mean, own, passed = self.parts(x)
        return Moments(mean, own if passed is None else own.add_(passed))

    def parts(self, x: Tensor | Moments) -> tuple[Tensor, Tensor, Tensor | None]:
        """The mean, the variance that the weights add, and that of the inputs, passed on; None of known inputs."""
        weight, bias = self.weight, self.bias
        if not isinstance(x, Moments):
            return *moments(self.op, x, weight, bias), None  # type: ignore[arg-type]
        mean = self.op(x.mean, weight.mean, None if bias is None else bias.mean)
        power = torch.addcmul(x.variance, x.mean, x.mean)
        own = self.op(power, weight.variance, None if bias is None else bias.variance)
        return mean, own, self.op(x.variance, self.squared_mean, None)

    def followed_by(self, scale: Tensor, shift: Tensor) -> Self:
        """The rule of this layer and of scale y + shift for each channel of its outputs."""
        rows, squared_rows = self.op.over_rows(scale), self.op.over_rows(scale.square())
        weight = FixedMoments(self.weight.mean * rows, self.weight.variance * squared_rows)
        old = self.bias
        bias = FixedMoments(
            shift if old is None else shift + scale * old.mean,
            torch.zeros_like(shift) if old is None else scale.square() * old.variance,
        )
        return type(self)(self.op, weight, bias)


class JointWeights(nn.Module):
    """x W^T + b of a linear layer whose weights are of one joint posterior: their covariance counts whole.

    Exact for known inputs. Variances of the inputs are passed on, and meet those of the weights, as if the weights
    were independent.

    Args:
        op: the layer's arithmetic.
        weight: W.
        bias: of the same joint, or None.
        marginals: the rule for independent weights.
    """

    def __init__(self, op: Any, weight: JointWeight, bias: Any, marginals: RandomWeights):
        super().__init__()
        self.op, self.marginals = op, marginals
        dtype = at_least_float32(weight.mu)
        self.weight, self.bias = (
            None if part is None else copy.deepcopy(part).to(dtype).requires_grad_(False) for part in (weight, bias)
        )

    @property
    def matrix(self) -> Tensor:
        """E W."""
        return self.marginals.matrix

    def forward(self, x: Tensor | Moments) -> Moments:
        mean, own, passed = self.parts(x)
        variance = own.diagonal(dim1=-2, dim2=-1)
        return Moments(mean, variance if passed is None else variance + passed)

    def parts(self, x: Tensor | Moments) -> tuple[Tensor, Tensor, Tensor | None]:
        """The mean, the covariance ``(batch, outputs, outputs)`` of the weights, and the variance passed on."""
        weight: Any = self.weight
        known = x.mean if isinstance(x, Moments) else x
        mean, _, passed = self.marginals.parts(x)
        factor = weight.output_factor(known, self.bias)
        own = factor @ factor.mT
        if isinstance(x, Moments):
            own = own + torch.diag_embed(self.op(x.variance, self.marginals.weight.variance, None))
        return mean, own, passed


class KnownWeights(nn.Module):
    """op(x, W) + b with weights that are not random: m' = op(m; W, b), v' = op(v; W^2).

    Args:
        op: the layer's arithmetic.
        weight: W.
        bias: b or None.
    """

    weight: Tensor
    bias: Tensor | None
    squared: Tensor

    def __init__(self, op: Any, weight: Tensor, bias: Tensor | None):
        super().__init__()
        self.op = op
        weight = channels_last(weight.detach().to(at_least_float32(weight)))
        self.register_buffer("weight", weight.clone(), persistent=False)
        self.register_buffer("squared", weight.square(), persistent=False)
        self.register_buffer(
            "bias", None if bias is None else bias.detach().to(weight.dtype, copy=True), persistent=False
        )

    @property
    def matrix(self) -> Tensor:
        """W."""
        return self.weight

    def forward(self, x: Moments) -> Moments:
        return Moments(self.op(x.mean, self.weight, self.bias), self.op(x.variance, self.squared, None))

    def parts(self, x: Moments) -> tuple[Tensor, Tensor, Tensor]:
        """The mean, the variance that the weights add, which is 0, and that of the inputs, passed on."""
        mean, variance = self(x)
        return mean, torch.zeros_like(variance), variance

    def followed_by(self, scale: Tensor, shift: Tensor) -> Self:
        """The rule of this layer and of scale y + shift for each channel of its outputs."""
        bias = shift if self.bias is None else shift + scale * self.bias
        return type(self)(self.op, self.weight * self.op.over_rows(scale), bias)


class Factor(nn.Module):
    """x z with independent z of mean l and variance s^2: m' = l m, v' = (l^2 + s^2) v + s^2 m^2.

    Args:
        location: l, in a shape that broadcasts to x.
        variance: s^2, likewise.
    """

    location: Tensor
    variance: Tensor
    power: Tensor

    def __init__(self, location: Tensor, variance: Tensor):
        super().__init__()
        power = location.square() + variance
        for name, value in (("location", location), ("variance", variance), ("power", power)):
            self.register_buffer(name, value.detach().clone(), persistent=False)

    def forward(self, x: Tensor | Moments) -> Moments:
        mean, variance = x if isinstance(x, Moments) else (x, None)
        own = self.variance * mean.square()
        return Moments(mean * self.location, own if variance is None else torch.addcmul(own, self.power, variance))

    def with_slope(self, x: Moments) -> tuple[Moments, Tensor]:
        """Also l, for each element."""
        return self(x), self.location.expand_as(x.mean)


class NoisyLayer(nn.Module):
    """Noise that multiplies a layer's inputs, or its outputs, or both, and weights that are not random.

    Args:
        inputs: the factor of inputs or None.
        layer: the weights; without a bias where the outputs' noise leaves it out.
        outputs: the factor of outputs or None.
        bias: added at the end, in a shape that broadcasts to the outputs; or None.
    """

    bias: Tensor | None

    def __init__(self, inputs: Factor | None, layer: KnownWeights, outputs: Factor | None, bias: Tensor | None = None):
        super().__init__()
        self.inputs, self.layer, self.outputs = inputs, layer, outputs
        self.register_buffer("bias", None if bias is None else bias.detach().clone(), persistent=False)

    def forward(self, x: Tensor | Moments) -> Moments:
        y: Any = x if self.inputs is None else self.inputs(x)
        y = self.layer(y) if isinstance(y, Moments) else self.layer.op(y, self.layer.weight, self.layer.bias)
        y = y if self.outputs is None else self.outputs(y)
        return y if self.bias is None else Moments(y.mean + self.bias, y.variance)


def rule_of_random_layer(layer: nn.Module, name: str) -> nn.Module:
    """The rule of a random layer under its method; it takes inputs that are random or not.

    Raises:
        MomentsError: when there is none.
    """
    named = called(name, layer)
    if not isinstance(layer, BayesianLayer):
        raise MomentsError(f"a network with {named}, through which no mean and variance are known to go")
    method, op, weight, bias = layer.method, layer.op, layer.weight, layer.bias
    if isinstance(weight, Rank1Weight):
        return _rank1(op, weight, bias, named)
    if method.noise_on == "weights":
        if isinstance(weight, Multiplicative) and weight.shared:
            _refuse_shared_noise(op, weight, len(weight.alpha()), named)
        rule = RandomWeights(op, FixedMoments.of(weight, named), None if bias is None else FixedMoments.of(bias, named))
        if isinstance(weight, JointWeight) and isinstance(op, LinearOp):
            return JointWeights(op, weight, bias, rule)
        return rule
    if not isinstance(weight, Multiplicative):
        raise MomentsError(f"{type(method).__name__}, whose noise is not on weights and no alpha of a Multiplicative")
    known = KnownWeights(op, weight.mean, None if bias is None else bias.mean)
    alpha = weight.alpha()
    if method.noise_on == "outputs":
        return NoisyLayer(None, known, _around_one(op.over_outputs(alpha)))
    if not method.noise_on_elements:
        _refuse_shared_noise(op, weight, op.in_channels, named)
    return NoisyLayer(_around_one(op.over_inputs(alpha)), known, None)


def _around_one(variance: Tensor) -> Factor:
    return Factor(torch.ones_like(variance), variance)


def _rank1(op: Any, weight: Rank1Weight, bias: Posterior | None, named: str) -> NoisyLayer:
    if not weight.has_variance:
        raise MomentsError(f"a network whose {named} has weights without a variance")
    _refuse_shared_noise(op, weight, op.in_features, named)
    inputs, outputs = (
        Factor(over(factor.location), over(factor.scale.square()))
        for over, factor in ((op.over_inputs, weight.inputs), (op.over_outputs, weight.outputs))
    )
    shift = None if bias is None else op.over_outputs(bias.mean)
    return NoisyLayer(inputs, KnownWeights(op, weight.mu, None), outputs, shift)


def _refuse_shared_noise(op: Any, weight: Posterior, values: int, named: str) -> None:
    """Refuses noise of which one value multiplies several inputs of an output: their sum is no sum of independents."""
    groups = getattr(op, "groups", 1)  # of a convolution: an output has weights for the channels of its own alone
    if values * op.out_features < groups * weight.mean.numel():
        raise MomentsError(f"a network whose {named} has noise that is shared by the pixels of a channel")


def rule_of_plain_layer(layer: Any) -> KnownWeights:
    """The rule of a layer of a kind that can be random, and is not."""
    return KnownWeights(op_of(layer), layer.weight, layer.bias)
