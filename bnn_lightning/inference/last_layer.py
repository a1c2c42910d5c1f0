"""What inferences for the last layer alone share: it is found, made random, and its inputs are recorded."""

import torch
from torch import Tensor, nn

from bnn_lightning.core.layers import BayesianLayer
from bnn_lightning.core.methods.base import Method
from bnn_lightning.core.ops import kind_of
from bnn_lightning.core.selection import candidates
from bnn_lightning.core.whole_network import bayesian_layers
from bnn_lightning.inference.base import checked_outputs
from bnn_lightning.likelihoods.regression.noise import LEARNT_NOISE


def refuse_choices(inference: str, method: Method | None, only: str | list[str]) -> None:
    """Raises ValueError where layers and method are chosen for an inference that brings its own."""
    if method is not None:
        raise ValueError(f"method must be null for {inference}, which brings its own, got {type(method).__name__}.")
    chosen = [pattern for pattern in ([only] if isinstance(only, str) else only) if not pattern.startswith("!")]
    if chosen != ["*"]:
        raise ValueError(f"only must be * for {inference}, whose setting layer names the random layer, got {only}.")


def last_linear_layer(net: nn.Module, name: str | None) -> tuple[str, nn.Linear]:
    """The linear layer of that name; without one the last in the order of the network's modules.

    Raises:
        ValueError: when there is none.
    """
    linear = {own: layer for layer, own in candidates(net)[0].items() if kind_of(layer, (nn.Linear,)) is not None}
    if not linear:
        raise ValueError("network must have a linear layer as its last for an inference of the last layer, got none.")
    if name is not None and name not in linear:
        raise ValueError(f"layer must be the name of a linear layer, one of {', '.join(linear)}, got {name}.")
    chosen = list(linear)[-1] if name is None else name
    layer = linear[chosen]
    assert isinstance(layer, nn.Linear)
    return chosen, layer


def random_layer(net: nn.Module) -> BayesianLayer:
    """The one random layer of ``net``."""
    (layer,) = bayesian_layers(net)
    assert isinstance(layer, BayesianLayer)
    return layer


def outputs_and_features(net: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs ``(batch, outputs)`` of a forward pass, and the inputs of the random layer, ``(batch, in_features)``.

    The first outputs are those of the layer; what a likelihood learns beside the network follows.

    Raises:
        ValueError: when the outputs of the network are not those of its random layer.
    """
    layer = random_layer(net)
    calls: list[tuple[Tensor, Tensor]] = []
    handle = layer.register_forward_hook(lambda _, inputs, y: calls.append((inputs[0], y)))
    try:
        outputs = checked_outputs(net, x)
    finally:
        handle.remove()
    features, y = calls[0] if len(calls) == 1 else (x, x)
    noise = getattr(net, LEARNT_NOISE, None)
    own = outputs if noise is None else outputs[:, : -noise.constants.numel()]
    same = y is own or (y.shape == own.shape and torch.allclose(y.to(own.dtype), own, rtol=0, atol=0, equal_nan=True))
    if len(calls) != 1 or features.dim() != 2 or not same:
        name = next(name for name, module in net.named_modules() if module is layer)
        others = [name for name, module in net.named_modules() if isinstance(module, nn.Linear)]
        cure = f"; others are {', '.join(others)}" if others else ""
        raise ValueError(
            f"layer must be the linear layer whose outputs are those of the network, got {name or 'the network'}, "
            f"whose are not{cure}."
        )
    return outputs, features


def with_ones(features: Tensor, layer: BayesianLayer) -> Tensor:
    """``features`` with a column of ones for the bias, if ``layer`` has one: ``(batch, columns)``."""
    return features if layer.bias is None else nn.functional.pad(features, (0, 1), value=1.0)
