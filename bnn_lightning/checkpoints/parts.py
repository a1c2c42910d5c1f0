"""The parts that a config of ``bnn fit`` names, made into a network, and what a checkpoint has trained of them."""

import copy
import re
import warnings
from argparse import ArgumentError
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from importlib import import_module
from inspect import signature
from typing import Any, Self, TypeVar

import torch
from jsonargparse import ArgumentParser, Namespace
from torch import Tensor, nn

from bnn_lightning.checkpoints.own_modules import place_of
from bnn_lightning.checkpoints.record import CheckpointError, Record
from bnn_lightning.core.conversion import with_versions
from bnn_lightning.core.methods import Method
from bnn_lightning.core.selection import lazy_layers, random_layer_names
from bnn_lightning.core.whole_network import bayesian_layers
from bnn_lightning.evaluation.draws import Ensemble, Sampling
from bnn_lightning.inference import Inference, Variational
from bnn_lightning.likelihoods import Categorical, Likelihood
from bnn_lightning.networks import Network

Built = TypeVar("Built")


@dataclass(frozen=True)
class Parts:
    """The settings of ``model`` in a config of ``bnn fit``, each with its part built.

    Fields and defaults are the arguments of :class:`bnn_lightning.BayesianModule`, which says what each is.
    """

    network: Network
    method: Method | None = None
    inference: Inference = field(default_factory=Variational)
    likelihood: Likelihood = field(default_factory=Categorical)
    sampling: Sampling = field(default_factory=Sampling)
    only: str | list[str] = "*"
    init_from: str | None = None
    freeze: str | list[str] | None = None
    input_shape: list[int] | None = None
    members: int = 1
    compile: bool = False
    allow_shared_statistics: bool = False

    def build(self) -> tuple[nn.Module, list[str]]:
        """The network that is trained, an ensemble where there are several members; and the names of frozen modules."""
        method = self.method
        if method is not None and self.init_from is not None:
            method = method.pretrained()
        initialise_lazy_layers(self.network, self.input_shape)
        prepared = self.likelihood.prepare(self.network)
        frozen = freeze_layers(prepared, self.freeze)
        only = random_names(prepared, self.only, frozen)
        return build_network(prepared, method, self.inference, only, self.members, self.compile), frozen


@dataclass(frozen=True)
class Trained:
    """What a checkpoint has trained, on the CPU, in eval mode.

    Args:
        network: with random layers; an :class:`bnn_lightning.Ensemble` where it has several members.
        likelihood: of the labels, in their units.
        sampling: how samples are drawn in test and predict.
        calibration: by the names of the draws.
    """

    network: nn.Module
    likelihood: Likelihood
    sampling: Sampling
    calibration: Mapping[str, Any]

    @classmethod
    def of(cls, record: Record) -> Self:
        """That of a record.

        Raises:
            CheckpointError: when it holds no config, its config names a class that is not found, or its weights do
                not fit the network.
        """
        parts = built(Parts, record)
        network, _ = parts.build()
        load_weights(network, record.network_state, record)
        likelihood = parts.likelihood.for_data(record.data or {})
        return cls(network.eval(), likelihood, parts.sampling, calibrations_of(record, likelihood))


def built(cls: type[Built], record: Record) -> Built:
    """``cls`` built with the settings of a record, untrained.

    Raises:
        CheckpointError: when it holds no config, or its config names a class that is not found.
    """
    if record.config is None:
        raise CheckpointError(
            f"{record.path} was saved from Python and holds no config, so that nothing says what it is made of; say it "
            "as when it was trained: BayesianModule.load_from_checkpoint(path, network=..., method=...)."
        )
    try:
        return parsed_parts(cls, record.config)
    except ArgumentError as error:
        raise CheckpointError(_why_not_built(record, str(error))) from error


def load_weights(module: nn.Module, weights: dict[str, Tensor], record: Record) -> None:
    """Loads ``weights``, of a record, into a module.

    Raises:
        CheckpointError: when they do not fit.
    """
    try:
        module.load_state_dict(with_versions(weights, record.state_dict, module.state_dict()))
    except RuntimeError as error:
        mismatch = str(error).partition("\n")[2].strip().partition("\n")[0] or str(error)
        raise CheckpointError(
            f"{record.path} does not fit the network that its config names, whose code may have changed since: "
            f"{mismatch}"
        ) from error


def calibrations_of(record: Record, likelihood: Likelihood) -> dict[str, Any]:
    """By the names of the draws the results of :meth:`bnn_lightning.Likelihood.calibrate` that a checkpoint holds."""
    kind = likelihood.calibration_type
    return {draws: kind(**values) for draws, values in record.calibration.items()} if kind else {}


def parsed_parts(cls: type[Built], config: Mapping[str, Any]) -> Built:
    """``cls`` built with the settings of ``model`` in a config of ``bnn fit``.

    Raises:
        ArgumentError: when a class is not found, or a setting none of its class.
    """
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(cls, "model")
    parsed = parsed_object(parser, {"model": copy.deepcopy(config["model"])}, "model.network")
    return parser.instantiate(parsed).model


def _why_not_built(record: Record, message: str) -> str:
    """The sentence about a config that cannot be built."""
    for class_path in record.code:
        module = class_path.rpartition(".")[0]
        try:
            import_module(module)
        except ImportError:
            file, folder = place_of(record.code, class_path)
            return (
                f"code must be a folder with the module {module}, whose {class_path} is in {record.path} and cannot be "
                f"imported; it was in {file} when the checkpoint was saved: code={folder!r} finds it there."
            )
    return f"{record.path} cannot be built from its config: {' '.join(message.split())}"


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
    config = _parsed(parser, values, key)
    drop_resolved_defaults(config[key])
    return config


def _parsed(parser: ArgumentParser, values: dict[str, Any], key: str) -> Namespace:
    """The same, with the defaults of arguments that the function passes on."""
    try:
        return parser.parse_object(values)
    except ArgumentError as error:
        name = default_class_without_arguments(str(error))
        if name is None:
            raise
        network = values
        for part in key.split("."):
            network = network[part]
        network["init_args"] = dict(network.get("init_args") or {}) | {name: None}
        config = _parsed(parser, values, key)
        del config[key].init_args[name]
        return config


def default_class_without_arguments(message: str) -> str | None:
    """The argument whose default is a class that jsonargparse would call, if that is what its error says.

    It finds the arguments behind ``**kwargs`` by reading code, such as the block of torchvision's shufflenets.
    """
    found = re.search(r'Parser key "(\w+)":\s+(Type [^\n]*)?the following arguments are required', message)
    return None if found is None else found[1]


def drop_resolved_defaults(network: Namespace, only_classes: bool = False) -> None:
    """Removes from a network's settings the defaults of arguments that its function passes on as ``**kwargs``.

    jsonargparse finds these arguments by reading code, defaults included. They are of another function: the one that
    passes them on may set them itself, as torchvision's resnext50_32x4d does with groups, and refuse to be told
    otherwise. And default classes would be made into functions of another form than the code expects.

    Args:
        network: ``class_path`` and ``init_args``.
        only_classes: whether default numbers stay, so that the data can replace them.
    """
    module, _, name = network.class_path.rpartition(".")
    function = getattr(import_module(module), name)
    if isinstance(function, type):
        return
    own = signature(function).parameters
    passed_on = [
        key
        for key, value in vars(network.get("init_args") or Namespace()).items()
        if key not in own and (isinstance(value, Namespace) or not only_classes)
    ]
    if passed_on:
        parser = ArgumentParser(exit_on_error=False)
        parser.add_argument("--network", type=Network)
        defaults = _parsed(parser, {"network": {"class_path": network.class_path}}, "network").network.init_args
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
