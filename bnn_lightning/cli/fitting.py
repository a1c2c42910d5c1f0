"""What network and data take from each other in a config: channels, classes, the size of images."""

import warnings
from inspect import Parameter, signature
from itertools import product
from typing import Any

import torch
from jsonargparse import ArgumentParser, Namespace
from lightning.pytorch import LightningDataModule
from lightning.pytorch.cli import instantiate_class
from torch import nn

from bnn_lightning.checkpoints.parts import parsed_object
from bnn_lightning.cli.settings import class_of
from bnn_lightning.core.selection import lazy_layers
from bnn_lightning.data import ImageData
from bnn_lightning.likelihoods import Likelihood
from bnn_lightning.networks import Network
from bnn_lightning.training.batches import images_and_labels
from bnn_lightning.training.probe import first_batch

# Names that networks have for what the data say; in_chans is timm's.
_ALIASES = {
    "in_channels": ("in_channels", "in_chans"),
    "in_features": ("in_features",),
    "num_classes": ("num_classes", "num_outputs"),
}
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def fit_network_to_data(config: Namespace) -> None:
    """Gives the network the data's channels, or features, and as many outputs as the likelihood needs for the labels;
    the images get the size and channels that the network wants, and the likelihood its number of targets.

    A function that makes a network and passes ``**kwargs`` on, such as ``torchvision.models.resnet18``, gets them too,
    where it takes them.
    """
    network, data = class_of(config.model.network), config.data
    given = data.get("init_args") or Namespace()
    is_ours = isinstance(network, type) and Network in network.__mro__
    built = None if is_ours else _trial(config.model.network)
    _agree_on_size(config.model.network, network, built, given)
    facts = instantiate_class((), data.as_dict())
    values = {name: getattr(facts, name, None) for name in ("in_channels", "in_features")}
    values["num_classes"] = _num_outputs(config.model.likelihood, facts)
    unplaced = _fill(config.model.network, network, {name: value for name, value in values.items() if value})
    if is_ours:
        return
    if unplaced and any(each.kind is Parameter.VAR_KEYWORD for each in signature(network).parameters.values()):
        built = _pass_on(config.model.network, unplaced) or built
    if built is not None and "in_channels" in unplaced and values["in_channels"] == 1 and "channels" in given:
        first = next((layer for layer in built.modules() if isinstance(layer, _CONVOLUTIONS)), None)
        if given.channels is None and first is not None and first.in_channels == 3:
            given.channels = 3
    if built is not None and config.model.get("input_shape") is None and lazy_layers(built):
        config.model.input_shape = _image_shape(facts, given)


def _num_outputs(part: Namespace, data: LightningDataModule) -> int | None:
    """How many outputs a network needs for the data's labels; the likelihood is given its number of targets.

    Raises:
        ValueError: when the likelihood is of another kind of labels.
    """
    kind, ours = getattr(data, "label_kind", None), getattr(class_of(part), "label_kind", None)
    if kind is not None and ours is not None and kind != ours:
        fitting = {"classes": "Categorical", "numbers": "Gaussian or StudentT"}[kind]
        name = getattr(data, "name", type(data).__name__)
        raise ValueError(
            f"likelihood must be {fitting} for {name}, whose labels are {kind}, got {class_of(part).__name__}."
        )
    targets = getattr(data, "num_targets", 0)
    if targets and "targets" in signature(class_of(part)).parameters:
        part.init_args.targets = targets
    likelihood: Likelihood = instantiate_class((), part.as_dict())
    labels = targets or getattr(data, "num_classes", None)
    return likelihood.num_outputs(labels) if labels else None


def _agree_on_size(part: Namespace, network: Any, built: nn.Module | None, given: Namespace) -> None:
    """One image size for the network and the data.

    A network says its size by an attribute, of its class or of the object, or by the default of an argument; or it
    takes any.

    Raises:
        ValueError: when both were given, and differ.
    """
    arguments = signature(network).parameters
    size = getattr(network, "image_size", None) or getattr(built, "image_size", None)
    if "image_size" in arguments:
        default, asked = arguments["image_size"].default, part.init_args.image_size
        if asked != default and given.get("image_size") not in (None, asked):
            raise ValueError(
                f"image_size must be one for network and data, got {asked} and {given.image_size}; give one of them."
            )
        size = asked if isinstance(asked, int) else size
    if isinstance(size, int) and "image_size" in given:
        if given.image_size is None:
            given.image_size = size
        elif "image_size" not in arguments and given.image_size != size:
            raise ValueError(
                f"image_size must be {size} for {network.__name__}, got {given.image_size}; "
                "leave it out, and images are resized."
            )
    if "image_size" in arguments and given.get("image_size") is not None:
        part.init_args.image_size = given.image_size


def _image_shape(data: LightningDataModule, given: Namespace) -> list[int] | None:
    """``[channels, height, width]`` of the images, which lazy layers take their sizes from."""
    if isinstance(data, ImageData):
        size = given.image_size or data.native_size
        return None if size is None else [given.channels or data.in_channels, size, size]
    first = first_batch(data, is_set_up=False)
    return None if first is None else list(images_and_labels(first.batch)[0].shape[1:])


def _fill(part: Namespace, network: Any, facts: dict[str, int]) -> dict[str, int]:
    """Sets the network's arguments for these facts; returns those that it has no argument for."""
    arguments = {*signature(network).parameters, *vars(part.get("init_args") or Namespace())}
    unplaced = {}
    for name, value in facts.items():
        own_name = next((alias for alias in _ALIASES[name] if alias in arguments), None)
        if own_name is None:
            unplaced[name] = value
        else:
            part.init_args[own_name] = value
    return unplaced


def _pass_on(part: Namespace, facts: dict[str, int]) -> nn.Module | None:
    """Passes on to ``**kwargs`` as many of these facts as the network can be made with; returns that network."""
    before = dict(part.get("dict_kwargs") or {})
    for names in ([*facts], *([name] for name in facts)):
        for aliases in product(*(_ALIASES[name] for name in names)):
            part.dict_kwargs = before | {alias: facts[name] for alias, name in zip(aliases, names, strict=True)}
            if (built := _trial(part)) is not None:
                for name in names:
                    del facts[name]
                return built
    if before:
        part.dict_kwargs = before
    else:
        del part["dict_kwargs"]
    return None


def _trial(part: Namespace) -> nn.Module | None:
    """The network of a config, made without memory for its weights; None where it cannot be made."""
    for device in ("meta", "cpu"):  # some networks compute with numbers while they are made
        parser = ArgumentParser(exit_on_error=False)
        parser.add_argument("--network", type=Network)
        try:
            with torch.device(device), torch.random.fork_rng([]), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return parser.instantiate(parsed_object(parser, {"network": part.as_dict()}, "network")).network
        except Exception:  # a network of somebody else's can raise anything; it will again when it is made in earnest
            continue
    return None
