"""Networks made of their parts, and modules made of what a checkpoint holds."""

import copy
import re
import warnings
from argparse import ArgumentError
from fnmatch import fnmatchcase
from importlib import import_module
from inspect import signature
from typing import Any, TypeVar

import torch
from jsonargparse import ArgumentParser, Namespace
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from bnn_lightning.core.conversion import (
    load_plain_state_dict,
    to_plain,
    unwrapped_names,
    with_versions,
)
from bnn_lightning.core.layers import RandomLayer
from bnn_lightning.core.methods import Method
from bnn_lightning.core.selection import lazy_layers, random_layer_names
from bnn_lightning.core.whole_network import bayesian_layers
from bnn_lightning.evaluation.sampler import Ensemble
from bnn_lightning.inference import Inference
from bnn_lightning.networks import Network
from bnn_lightning.training.checkpoints import CheckpointError, Record

Module = TypeVar("Module", bound=LightningModule)


def build_network(
    network: nn.Module, method: Method | None, inference: Inference, only: str | list[str], members: int, compiles: bool
) -> nn.Module:
    """The network that is trained: made random, in the memory format of convolutions; or an ensemble of such."""
    if members < 1:
        raise ValueError(f"members must be 1 or more, got {members}.")
    prepared = inference.prepare(network, method, only)
    net = prepared if members == 1 else Ensemble([copy.deepcopy(prepared) for _ in range(members)])
    layers = bayesian_layers(net)
    for layer in layers:
        layer.compiles = compiles
    if compiles and not layers:
        warnings.warn("compile has nothing to compile in a deterministic network.", stacklevel=3)
    for tensor in (*net.parameters(), *net.buffers()):
        if tensor.dim() == 4:  # of five axes, such as Conv3d has, torch would refuse the format
            tensor.data = tensor.data.to(memory_format=torch.channels_last)
    return net


def parsed_object(parser: ArgumentParser, values: dict[str, Any], key: str) -> Namespace:
    """``parser.parse_object(values)``, also where the network at ``key`` is a function with classes as defaults.

    ``values`` may change.
    """
    try:
        config = parser.parse_object(values)
    except ArgumentError as error:
        name = default_class_without_arguments(str(error))
        if name is None:
            raise
        network = values
        for part in key.split("."):
            network = network[part]
        network["init_args"] = dict(network.get("init_args") or {}) | {name: None}
        config = parsed_object(parser, values, key)
        del config[key].init_args[name]
    drop_resolved_classes(config[key])
    return config


def default_class_without_arguments(message: str) -> str | None:
    """The argument whose default is a class that jsonargparse would call, if that is what its error says.

    It finds the arguments behind ``**kwargs`` by reading code, such as the block of torchvision's shufflenets.
    """
    found = re.search(r'Parser key "(\w+)":\s+(Type [^\n]*)?the following arguments are required', message)
    return None if found is None else found[1]


def drop_resolved_classes(network: Namespace) -> None:
    """Removes from a network's settings the classes that its function passes on as its own defaults.

    jsonargparse finds the arguments behind ``**kwargs`` by reading code, defaults included. Given back as settings,
    default classes would be made into functions of another form than the code that passes them on expects.
    """
    module, _, name = network.class_path.rpartition(".")
    function = getattr(import_module(module), name)
    if isinstance(function, type):
        return
    own = signature(function).parameters
    passed_on = [
        key
        for key, value in vars(network.get("init_args") or Namespace()).items()
        if key not in own and isinstance(value, Namespace)
    ]
    if passed_on:
        parser = ArgumentParser(exit_on_error=False)
        parser.add_argument("--network", type=Network)
        defaults = parser.parse_object({"network": {"class_path": network.class_path}}).network.init_args
        for key in passed_on:
            if network.init_args[key] == defaults.get(key):
                del network.init_args[key]


def initialise_lazy_layers(network: nn.Module, input_shape: list[int] | None) -> None:
    """Gives the lazy layers of ``network`` their sizes, by two images of zeros.

    Raises:
        ValueError: when it has lazy layers, and the shape of its images is not known or does not fit.
    """
    if lazy := lazy_layers(network):
        if input_shape is None:
            raise ValueError(
                f"input_shape must be the [channels, height, width] that the lazy {lazy[0]} needs, got null."
            )
        was_training = network.training
        try:
            with torch.no_grad():
                network.eval()(torch.zeros(2, *input_shape))
        except Exception as error:  # somebody else's network can raise anything
            raise ValueError(
                f"input_shape must be one that the network can take, got {input_shape}: {error}"
            ) from error
        network.train(was_training)


def freeze_layers(network: nn.Module, patterns: str | list[str] | None) -> list[str]:
    """Ends the training of the modules of ``network`` whose names match one of ``patterns``; returns their names.

    Raises:
        ValueError: when a pattern matches nothing.
    """
    frozen = []
    for pattern in [patterns] if isinstance(patterns, str) else patterns or []:
        matching = [name for name, _ in network.named_modules() if name and fnmatchcase(name, pattern)]
        if not matching:
            parts = ", ".join(name for name, _ in network.named_children())
            raise ValueError(f"freeze must be names in the network, whose parts are {parts}, got {pattern}.")
        for name in matching:
            network.get_submodule(name).requires_grad_(False)
        frozen += matching
    return frozen


def random_names(network: nn.Module, only: str | list[str], frozen: list[str]) -> list[str]:
    """The patterns ``only`` without what is frozen."""
    inside = tuple(f"{name}." for name in frozen)
    left_out = [name for name in random_layer_names(network) if name in frozen or name.startswith(inside)]
    return [*([only] if isinstance(only, str) else only), *(f"!{name}" for name in left_out)]


def start_from_weights(net: nn.Module, path: str, method: Method | None) -> str:
    """Starts ``net`` from the weights in a file: of its twin, of itself, or of a network with other outputs.

    Where the file has the whole posterior of ``net``, as a checkpoint of the same network does, that is taken. Else
    tensors are taken by name and shape. A random layer of which the file has nothing begins as under ``method``.

    Args:
        net: the network.
        path: a checkpoint of ``bnn fit``, or a file of tensors by name, such as ``torch.save(model.state_dict())``.
        method: of layers that are not in the file.

    Returns:
        a sentence about what the file does not have, or in another shape; empty where all is there.

    Raises:
        ValueError: when the file cannot be read, or less than half of the network's tensors are in it.
    """
    weights, own = _weights_in(path), net.state_dict()
    if weights.keys() == own.keys() and all(weights[name].shape == own[name].shape for name in own):
        net.load_state_dict(with_versions(weights, weights, own))
        return ""
    twin = to_plain(net).state_dict()
    given = unwrapped_names(weights, twin)
    if not given:
        raise ValueError(f"init_from must be a file of tensors by name, got {path}, which has none.")
    fitting = {name: value for name, value in given.items() if name in twin and value.shape == twin[name].shape}
    if 2 * len(fitting) < len(twin):
        name = next(name for name in sorted(twin.keys() | given.keys()) if name not in fitting)
        shapes = [list(tensors[name].shape) if name in tensors else "nothing" for tensors in (twin, given)]
        raise ValueError(
            f"init_from must be a checkpoint of the deterministic twin, got {path}: {name} must be {shapes[0]} as in "
            f"this network, got {shapes[1]}."
        )
    for name, layer in net.named_modules():
        names = (
            [f"{name}.{tensor}".removeprefix(".") for tensor in layer.names] if isinstance(layer, RandomLayer) else []
        )
        if isinstance(layer, RandomLayer) and method is not None and not any(own in fitting for own in names):
            layer.method = method
    load_plain_state_dict(net, twin | fitting)
    missing = [name for name in twin if name not in fitting and not name.endswith("num_batches_tracked")]
    if not missing:
        return ""
    others = ", ".join(f"{name} {list(given[name].shape)} there" if name in given else name for name in missing[:4])
    more = f" and {len(missing) - 4} more" if len(missing) > 4 else ""
    return f"init_from: {path} has {len(fitting)} of {len(twin)} tensors; these begin anew: {others}{more}."


def _weights_in(path: str) -> dict[str, Any]:
    """The weights in a checkpoint of ours, or what is in another file of tensors and plain values.

    Raises:
        ValueError: when it is neither.
    """
    try:
        return Record.read(path).network_state
    except CheckpointError as error:
        contents = _plain_contents(path)
        for key in ("state_dict", "model_state_dict", "model", "network", "net"):
            if isinstance(contents, dict) and isinstance(contents.get(key), dict):
                contents = contents[key]
        if not isinstance(contents, dict):
            raise ValueError(
                f"init_from must be a checkpoint of the deterministic twin, got {path}: {error}"
            ) from error
    tensors = {str(name): value for name, value in contents.items() if isinstance(value, Tensor)}
    if not tensors:
        raise ValueError(f"init_from must be a file of tensors by name, got {path}, which has none.")
    return tensors


def _plain_contents(path: str) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # what it is not has been said by the reader of checkpoints
        return None


def from_record(cls: type[Module], record: Record) -> Module:
    """The trained module of class ``cls`` in a checkpoint of ``bnn fit``, on the CPU, in eval mode.

    Raises:
        CheckpointError: when it was saved from Python, and does not say what it is made of.
    """
    if record.config is None:
        raise CheckpointError(f"{record.path} was saved from Python and holds no config; use load_from_checkpoint.")
    module = module_of(cls, record.config)
    load_record(module, record)
    return module


def module_of(cls: type[Module], config: dict[str, Any]) -> Module:
    """The module of class ``cls`` that a config of ``bnn fit`` describes, untrained, on the CPU, in eval mode."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(cls, "model")
    parsed = parsed_object(parser, {"model": copy.deepcopy(config["model"])}, "model.network")
    return parser.instantiate(parsed).model.eval()


def load_record(module: LightningModule, record: Record) -> None:
    """Puts a checkpoint's weights, and what it says of them, into a module."""
    module.on_load_checkpoint(record.contents)
    module.load_state_dict(record.state_dict)
