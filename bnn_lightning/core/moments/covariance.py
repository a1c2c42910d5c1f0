"""Covariances of a network's outputs: what its last linear layers make of noise that their units share."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from bnn_lightning.core.moments.activations import WithSlope, with_slope
from bnn_lightning.core.moments.calls import WITH_SLOPES
from bnn_lightning.core.moments.rules import Moments
from bnn_lightning.core.moments.weights import JointWeights, KnownWeights, NoisyLayer, RandomWeights
from bnn_lightning.core.ops.linear import LinearOp

MOST_OUTPUTS = 64
MOST_PRODUCTS = 1_000_000
"""Of numbers, for each image, that covariances may cost behind the first linear layer that they go back through."""


class Elementwise(nn.Module):
    """A function f of each element, by what gives its rule's moments and E[f'(X)], its slope.

    Args:
        both: from the moments of X to those of f(X), and to the slope.
        args: what it is called with behind X.
        settings: likewise, by name.
    """

    def __init__(self, both: Callable[..., WithSlope], *args: Any, **settings: Any):
        super().__init__()
        self.both, self.args, self.settings = both, args, settings

    def with_slope(self, x: Moments) -> WithSlope:
        return self.both(x, *self.args, **self.settings)


class Shift(nn.Module):
    """x + shift.

    Args:
        shift: in a shape that broadcasts to x.
    """

    shift: Tensor

    def __init__(self, shift: Tensor):
        super().__init__()
        self.register_buffer("shift", shift.detach().clone(), persistent=False)

    def forward(self, x: Any) -> Any:
        return Moments(x.mean + self.shift, x.variance) if isinstance(x, Moments) else x + self.shift

    def with_slope(self, x: Moments) -> WithSlope:
        return self(x), torch.ones_like(x.mean)


class OutputCovariance(nn.Module):
    """Mean and covariance of the outputs of a chain of linear layers and element-wise functions.

    Means, and the variances on the way, are those of the rules, for which the elements of each activation are
    independent. In the covariance of the outputs each source of noise counts once, with all paths from it: with
    J_l = W_L diag(s) W_(L-1) ... from the activations at l to the outputs, Cov = sum_l J_l diag(d_l) J_l^T. Here W are
    mean weights, s = E[f'(X)] = Cov(f(X), X) / v is the slope of f at X ~ N(m, v) (Stein's lemma), and d_l is the
    variance that is new at l: of a linear layer op(m^2 + v; Var W, Var b), of f what its slope does not explain,
    v' - s^2 v, and of the chain's inputs, which count as independent, v. That is the statistical linearisation of the
    chain (Gelb 1974, "Applied optimal estimation", section 6.2), with new noise at each layer.

    Args:
        stages: modules by name: rules of linear layers, factors, shifts and :class:`Elementwise`.
    """

    def __init__(self, stages: dict[str, nn.Module]):
        super().__init__()
        self.stages = nn.ModuleDict(stages)

    def forward(self, x: Tensor | Moments) -> tuple[Tensor, Tensor]:
        """Mean ``(batch, outputs)`` and covariance ``(batch, outputs, outputs)`` for inputs ``(batch, inputs)``."""
        steps = self.steps(x)
        y = steps[-1].after
        if not isinstance(y, Moments):  # noise nowhere
            return y, y.new_zeros(*y.shape, y.shape[-1])
        return y.mean, _covariance(steps)

    def steps(self, x: Tensor | Moments) -> list["_Step"]:
        y: Any = x
        steps = []
        stage: Any
        for stage in self.stages.values():
            step = _Step(y)
            if isinstance(stage, KnownWeights) and not isinstance(y, Moments):
                y = stage.op(y, stage.weight, stage.bias)
            elif isinstance(stage, RandomWeights | JointWeights | KnownWeights):
                mean, own, passed = stage.parts(y)
                variance = own if own.dim() == mean.dim() else own.diagonal(dim1=-2, dim2=-1)
                y = Moments(mean, variance if passed is None else variance + passed)
                step.own, step.matrix = own, stage.matrix
            elif isinstance(y, Moments):
                y, step.slope = stage.with_slope(y)
            else:
                y = stage(y)
            step.after = y
            steps.append(step)
        return steps


@dataclass
class _Step:
    """What a stage made of ``before``: its variance by weights, if it has any, and their means; or its slope."""

    before: Any
    after: Any = None
    own: Any = None
    matrix: Any = None
    slope: Any = None


def _covariance(steps: list[_Step]) -> Tensor:
    total: Tensor | float = 0.0
    back = _Back()
    for step in reversed(steps):
        if not isinstance(step.before, Moments):  # all noise is new
            return total + back.covariance(step.after.variance if step.own is None else step.own)
        if step.own is None:
            explained = step.slope.square() * step.before.variance
            back = back.through(step.slope, (step.after.variance - explained).clamp_min(0))
        else:
            total = total + back.covariance(step.own)
            back = back.to(step.matrix)
    return total + back.covariance(steps[0].before.variance)


class _Back:
    """From some activations to the outputs: J = jacobian diag(slope), and the variance that is new on the way.

    Args:
        jacobian: ``(outputs, units)``, also with the batch before; None is the identity.
        slope: ``(batch, units)``; None is 1.
        new: variance behind the slope that is not counted yet; None is 0.
    """

    def __init__(self, jacobian: Tensor | None = None, slope: Tensor | None = None, new: Tensor | None = None):
        self.jacobian, self.slope, self.new = jacobian, slope, new

    def _scaled(self, variance: Tensor) -> Tensor:
        variance = variance if self.slope is None else self.slope.square() * variance
        return variance if self.new is None else self.new + variance

    def through(self, slope: Tensor, new: Tensor) -> "_Back":
        """Before a function of each element with this slope, which adds the variance ``new``."""
        return _Back(self.jacobian, slope if self.slope is None else self.slope * slope, self._scaled(new))

    def covariance(self, noise: Tensor) -> Tensor:
        """Of the outputs, by noise here and the new one on the way.

        Args:
            noise: its variance ``(batch, units)`` or its covariance ``(batch, units, units)``.
        """
        if noise.dim() == 3:
            if self.slope is not None:
                noise = self.slope.unsqueeze(-1) * noise * self.slope.unsqueeze(-2)
            noise = noise if self.new is None else noise + torch.diag_embed(self.new)
            return noise if self.jacobian is None else self.jacobian @ noise @ self.jacobian.mT
        variance = self._scaled(noise)
        if self.jacobian is None:
            return torch.diag_embed(variance)
        return (self.jacobian * variance.unsqueeze(-2)) @ self.jacobian.mT

    def to(self, matrix: Tensor) -> "_Back":
        """Before a linear layer with the mean weights ``matrix``."""
        if self.jacobian is None:
            return _Back(matrix if self.slope is None else self.slope.unsqueeze(-1) * matrix)
        jacobian = self.jacobian if self.slope is None else self.jacobian * self.slope.unsqueeze(-2)
        return _Back(jacobian @ matrix)


def last_stages(
    output: fx.Node, rules: dict[fx.Node, nn.Module], random: set[fx.Node]
) -> tuple[list[fx.Node], dict[str, nn.Module]]:
    """The nodes at the end of a network for which :class:`OutputCovariance` is known, and its stages; none is empty.

    They end with a linear layer of at most ``MOST_OUTPUTS`` outputs, and begin where another linear layer would cost
    more than ``MOST_PRODUCTS``.

    Args:
        output: the node that gives the network's outputs.
        rules: of modules, by node.
        random: the nodes whose values are random.
    """
    nodes: list[fx.Node] = []
    stages: dict[str, nn.Module] = {}
    outputs, products, node = 0, 0, output
    while node in random and (node is output or len(node.users) == 1):
        parts = _stages_of(node, rules)
        layer = next((part for part in parts if isinstance(part, RandomWeights | JointWeights | KnownWeights)), None)
        if not parts or (layer is None and not outputs):
            break
        if layer is not None and outputs:
            products += outputs * layer.matrix.numel()
        elif layer is not None:
            outputs = len(layer.matrix)
        if outputs > MOST_OUTPUTS or products > MOST_PRODUCTS:
            break
        named = [node.name, *(f"{node.name}_{number}" for number in range(1, len(parts)))]
        nodes, stages = [node, *nodes], dict(zip(named, parts, strict=True)) | stages
        node = node.args[0]  # type: ignore[assignment]
    return nodes, stages


def is_elementwise(node: fx.Node, rules: dict[fx.Node, nn.Module]) -> bool:
    """Whether a node computes each element of its result from one element of its input."""
    stages = _stages_of(node, rules)
    return bool(stages) and all(isinstance(stage, Elementwise) for stage in stages)


def _stages_of(node: fx.Node, rules: dict[fx.Node, nn.Module]) -> list[Any]:
    """What a node does, as stages in their order; empty where it is none of them."""
    if node.op in ("call_function", "call_method"):
        both: Any = WITH_SLOPES.get(node.target)
        if both is None or len(node.all_input_nodes) != 1:
            return []
        settings: Any = node.kwargs
        return [Elementwise(both, *node.args[1:], **settings)]
    rule: Any = rules.get(node)
    if isinstance(rule, NoisyLayer) and isinstance(rule.layer.op, LinearOp):
        shift = None if rule.bias is None else Shift(rule.bias)
        return [part for part in (rule.inputs, rule.layer, rule.outputs, shift) if part is not None]
    if isinstance(rule, RandomWeights | JointWeights | KnownWeights):
        return [rule] if isinstance(rule.op, LinearOp) else []
    both = with_slope(getattr(rule, "function", rule))
    return [] if both is None else [Elementwise(both)]
