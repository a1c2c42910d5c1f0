"""A module's first weights from a file, and modules made of what a checkpoint holds."""

from collections.abc import Collection
from typing import Any, TypeVar

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from bnn_lightning.checkpoints.parts import Trained, built, load_weights, parsed_parts
from bnn_lightning.checkpoints.record import CheckpointError, Record
from bnn_lightning.core.conversion import (
    computed_weights,
    inner_state_dict,
    load_plain_state_dict,
    refuse_computed,
    to_plain,
    unwrapped_names,
    with_versions,
)
from bnn_lightning.core.layers import RandomLayer
from bnn_lightning.core.methods import Method
from bnn_lightning.wording import listed

Module = TypeVar("Module", bound=LightningModule)


def start_from_weights(net: nn.Module, path: str, method: Method | None) -> str:
    """Starts ``net`` from the weights in a file: of its twin, of itself, or of a network with other outputs.

    Where the file has the whole posterior of ``net``, as a checkpoint of the same network does, that is taken. Else
    tensors are taken by name and shape. A random layer of which the file does not have all begins as under ``method``.

    Args:
        net: the network.
        path: a checkpoint of ``bnn fit``, or a file of tensors by name, such as ``torch.save(model.state_dict())``.
        method: of layers that are not, or not wholly, in the file.

    Returns:
        a sentence about what the file does not have, or in another shape; empty where all is there.

    Raises:
        ValueError: when the file cannot be read, or less than half of the network's tensors are in it.
    """
    own = net.state_dict()
    weights = _weights_in(path, own.keys())
    # The prior of a network that begins from weights has a mean for each of them; that of the file is taken.
    priors = {name for name in own if name.rpartition(".")[2].startswith("prior_")}
    if weights.keys() == own.keys() and all(weights[name].shape == own[name].shape for name in own.keys() - priors):
        net.load_state_dict(with_versions(weights, weights, own))
        return ""
    twin = to_plain(net).state_dict()
    given = unwrapped_names(weights, twin)
    if not given:
        raise ValueError(f"init_from must be a file of tensors by name, got {path}, which has none.")
    refuse_computed(given, twin)
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
        if isinstance(layer, RandomLayer) and method is not None and not fitting.keys() >= twin.keys() & set(names):
            layer.method = method  # a prior is not centred on values that begin anew
    load_plain_state_dict(net, twin | fitting)
    missing = [name for name in twin if name not in fitting and not name.endswith("num_batches_tracked")]
    if not missing:
        return ""
    others = listed((f"{name} {list(given[name].shape)} there" if name in given else name for name in missing), most=4)
    return f"init_from: {path} has {len(fitting)} of {len(twin)} tensors; these begin anew: {others}."


def _weights_in(path: str, own: Collection[str]) -> dict[str, Any]:
    """The weights in a checkpoint of ours, or what is in another file of tensors and plain values.

    Weights that parametrisations compute there, and not in the network of the names ``own``, are given as computed.

    Raises:
        ValueError: when it is neither.
    """
    try:
        record = Record.read(path)
        weights = record.network_state
        is_computed = any(".parametrizations." in name for name in weights.keys() - own)
        return weights if record.config is None or not is_computed else computed_weights(Trained.of(record).network)
    except CheckpointError as error:
        contents = inner_state_dict(_plain_contents(path))
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
        CheckpointError: when it was saved from Python and does not say what it is made of, a class that it names is
            not found, or its weights do not fit.
    """
    module = built(cls, record).eval()
    load_record(module, record)
    return module


def module_of(cls: type[Module], config: dict[str, Any]) -> Module:
    """The module of class ``cls`` that a config of ``bnn fit`` describes, untrained, on the CPU, in eval mode."""
    return parsed_parts(cls, config).eval()


def load_record(module: LightningModule, record: Record) -> None:
    """Puts a checkpoint's weights, and what it says of them, into a module."""
    module.on_load_checkpoint(record.contents)
    load_weights(module, record.state_dict, record)
