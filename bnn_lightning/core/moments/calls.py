"""Moment rules of the functions and tensor methods that networks call in their forward: sums, shapes, activations."""

import inspect
import operator
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnn_lightning.core.moments.activations import (
    WithSlope,
    leaky_relu,
    leaky_relu_and_slope,
    quadrature,
    quadrature_and_slope,
    relu,
    relu_and_slope,
)
from bnn_lightning.core.moments.pooling import adaptive_window, as_tuple, average, max_pool
from bnn_lightning.core.moments.rules import Moments, MomentsError, Rule, moment_rule

Call = Callable[..., Any]
"""A rule of a function: called with the function's arguments, of which one or more are :class:`Moments`."""

CALLS: dict[Any, Call] = {}
"""By function, or by name of a tensor's method."""

WITH_SLOPES: dict[Any, Callable[..., WithSlope]] = {}
"""Of functions of each element: what gives the rule's moments and the expected slope E[f'(X)]."""

_QUERIED = ("size", "dim", "numel", "ndimension")
QUERIES: set[Any] = {getattr, *_QUERIED}
"""Functions and methods that say something about a tensor's shape: their results are not random."""


def check_arguments(rule: Call, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Refuses a call of the function ``name`` with arguments that its rule does not have.

    Raises:
        MomentsError: when there are such.
    """
    try:
        inspect.signature(rule).bind(*args, **kwargs)
    except TypeError as error:
        raise MomentsError(f"a network that calls {name} as its rule of moments cannot be called ({error})") from None


def _rule_for(*targets: Any, with_slope: Callable[..., WithSlope] | None = None) -> Callable[[Call], Call]:
    def register(call: Call) -> Call:
        CALLS.update(dict.fromkeys(targets, call))
        if with_slope is not None:
            WITH_SLOPES.update(dict.fromkeys(targets, with_slope))
        return call

    return register


# Sums and products


@_rule_for(operator.add, operator.iadd, torch.add, "add", "add_")
def _add(x: Any, y: Any, *, alpha: float = 1) -> Moments:
    """Moments of x + alpha y, of which both may be random: they count as independent."""
    if not isinstance(y, Moments):
        return _shifted(x, y if alpha == 1 else alpha * y)
    y = y if alpha == 1 else _multiply(y, alpha)
    if not isinstance(x, Moments):
        return _shifted(y, x)
    return Moments(x.mean + y.mean, x.variance + y.variance)


@_rule_for(operator.sub, operator.isub, torch.sub, "sub", "sub_")
def _subtract(x: Any, y: Any, *, alpha: float = 1) -> Moments:
    return _add(x, _multiply(y, -alpha) if isinstance(y, Moments) else -alpha * y)


@_rule_for(operator.neg, torch.neg, "neg")
def _negative(x: Moments) -> Moments:
    return Moments(-x.mean, x.variance)


@_rule_for(operator.mul, operator.imul, torch.mul, "mul", "mul_")
def _multiply(x: Any, y: Any) -> Moments:
    """Moments of x y: exact for independent factors."""
    if not isinstance(x, Moments):
        x, y = y, x
    if not isinstance(y, Moments):
        return Moments(x.mean * y, x.variance * (y * y))
    power = torch.addcmul(y.variance, y.mean, y.mean)
    return Moments(x.mean * y.mean, x.variance * power + x.mean.square() * y.variance)


@_rule_for(operator.truediv, operator.itruediv, torch.div, "div", "div_")
def _divide(x: Any, y: Any) -> Moments:
    if isinstance(y, Moments):
        raise MomentsError("a network that divides by activations")
    return _multiply(x, 1 / y)


def _shifted(x: Moments, shift: Any) -> Moments:
    mean = x.mean + shift
    return Moments(mean, x.variance.expand(mean.shape) if isinstance(shift, Tensor) else x.variance)


AFFINE: tuple[Call, ...] = (_add, _subtract, _negative, _multiply, _divide)
"""The rules of this module that, of one random argument, give an affine function of each element."""


# Shapes


def _moved(call: Callable[..., Any], x: Moments, *args: Any, **kwargs: Any) -> Any:
    """``call`` of mean and of variance; where it gives several tensors, moments of each."""
    means, variances = call(x.mean, *args, **kwargs), call(x.variance, *args, **kwargs)
    if isinstance(means, Tensor):
        return Moments(means, variances)
    return tuple(Moments(*pair) for pair in zip(means, variances, strict=True))


_MOVING: tuple[Any, ...] = (
    *(torch.flatten, torch.reshape, torch.permute, torch.transpose, torch.unsqueeze, torch.squeeze),
    *(torch.chunk, torch.split, torch.movedim, torch.unflatten),
)
for _function in _MOVING:
    CALLS[_function] = partial(_moved, _function)
    # The method of the name takes sizes one by one, too: x.reshape(2, -1).
    CALLS[_function.__name__] = partial(_moved, getattr(Tensor, _function.__name__, _function))
for _function in (F.pixel_shuffle, F.pixel_unshuffle):
    CALLS[_function] = partial(_moved, _function)
for _name in ("expand", "contiguous", "repeat", "clone"):
    CALLS[_name] = partial(_moved, getattr(Tensor, _name))
CALLS["view"] = partial(_moved, Tensor.reshape)  # of moments in channels_last memory, too

MOVING: set[Any] = {*_MOVING, *(_function.__name__ for _function in _MOVING), "view", "expand", "contiguous"}
"""What gives a view of its input, or may do so."""

ONE_TO_ONE = MOVING - {torch.chunk, torch.split, "chunk", "split", "expand"} | {"clone"}
"""What gives each element of its input once, in another shape."""


@moment_rule(nn.Flatten, nn.Unflatten, nn.PixelShuffle, nn.PixelUnshuffle, nn.ChannelShuffle, nn.ZeroPad2d)
def _moving(layer: nn.Module) -> Rule:
    return partial(_moved, layer)


@_rule_for(operator.getitem)
def _item(x: Any, index: Any) -> Any:
    return Moments(x.mean[index], x.variance[index]) if isinstance(x, Moments) else x[index]


@_rule_for(torch.cat, torch.concat)
def _concatenated(tensors: Any, dim: int = 0) -> Moments:
    parts = [part if isinstance(part, Moments) else Moments(part, torch.zeros_like(part)) for part in tensors]
    return Moments(torch.cat([part.mean for part in parts], dim), torch.cat([part.variance for part in parts], dim))


@_rule_for(getattr)
def _attribute(x: Moments, name: str) -> Any:
    if name not in ("shape", "ndim", "dtype", "device"):
        raise MomentsError(f"a network that reads {name} of activations")
    return getattr(x.mean, name)


for _name in _QUERIED:
    CALLS[_name] = lambda x, *args, name=_name: getattr(x.mean, name)(*args)


# Pooling


@_rule_for(torch.mean, "mean")
def _mean(x: Moments, dim: Any = None, keepdim: bool = False) -> Moments:
    return average(x, as_tuple(range(x.mean.dim()) if dim is None else dim, 1), keepdim)


@_rule_for(F.adaptive_avg_pool2d)
def _adaptive_average(x: Moments, output_size: Any) -> Moments:
    window = adaptive_window(x.mean, output_size, 2, "adaptive_avg_pool2d")
    count = torch.Size(window).numel()
    return Moments(F.adaptive_avg_pool2d(x.mean, output_size), F.adaptive_avg_pool2d(x.variance, output_size) / count)


@_rule_for(F.avg_pool2d)
def _average_pool(x: Moments, kernel_size: Any, stride: Any = None, padding: Any = 0) -> Moments:
    count = torch.Size(as_tuple(kernel_size, 2)).numel()
    settings = (kernel_size, stride, padding)
    return Moments(F.avg_pool2d(x.mean, *settings), F.avg_pool2d(x.variance, *settings) / count)


@_rule_for(F.max_pool2d, torch.max_pool2d)
def _max_pool(
    x: Moments,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Moments:
    if return_indices:
        raise MomentsError("a network whose max_pool2d gives indices")
    settings = (kernel_size, stride, padding, dilation, ceil_mode)
    return max_pool(x, lambda mean: F.max_pool2d(mean, *settings, return_indices=True), 2)


# Activations


def _relu_and_slope(x: Moments, inplace: bool = False) -> WithSlope:
    return relu_and_slope(x)


@_rule_for(F.relu, torch.relu, torch.relu_, "relu", "relu_", with_slope=_relu_and_slope)
def _relu(x: Moments, inplace: bool = False) -> Moments:
    return relu(x)


def _leaky_relu_and_slope(x: Moments, negative_slope: float = 0.01, inplace: bool = False) -> WithSlope:
    return leaky_relu_and_slope(x, negative_slope)


@_rule_for(F.leaky_relu, with_slope=_leaky_relu_and_slope)
def _leaky_relu(x: Moments, negative_slope: float = 0.01, inplace: bool = False) -> Moments:
    return leaky_relu(x, negative_slope)


def _elementwise(function: Callable[..., Tensor], x: Moments, *args: Any, **kwargs: Any) -> Moments:
    kwargs.pop("inplace", None)
    return quadrature(lambda values: function(values, *args, **kwargs), x)


def _and_slope(function: Callable[..., Tensor], x: Moments, *args: Any, **kwargs: Any) -> WithSlope:
    kwargs.pop("inplace", None)
    return quadrature_and_slope(lambda values: function(values, *args, **kwargs), x)


_ACTIVATIONS: tuple[Any, ...] = (
    *(F.softplus, F.gelu, F.silu, F.elu, F.selu, F.mish, F.hardtanh, F.relu6, F.hardswish, F.hardsigmoid),
    *(F.sigmoid, F.tanh),
)
for _targets in (*((_function,) for _function in _ACTIVATIONS), (torch.sigmoid, "sigmoid"), (torch.tanh, "tanh")):
    _rule_for(*_targets, with_slope=partial(_and_slope, _targets[0]))(partial(_elementwise, _targets[0]))


def _dropout_and_slope(x: Moments, p: float = 0.5, training: bool = True, inplace: bool = False) -> WithSlope:
    return _dropout(x, p, training), torch.ones_like(x.mean)


@_rule_for(F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, with_slope=_dropout_and_slope)
def _dropout(x: Moments, p: float = 0.5, training: bool = True, inplace: bool = False) -> Moments:
    if training:
        raise MomentsError("a network that drops activations in eval mode too")
    return x
