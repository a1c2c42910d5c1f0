"""Conversion between plain and Bayesian networks: bayesianize, to_plain, and loading the weights of a plain network."""

import copy
import re
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping
from types import FunctionType
from typing import Any

from torch import Tensor, nn
from torch.nn.utils import parametrize, prune, remove_spectral_norm, remove_weight_norm
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from bnn_lightning.core.attention import RandomAttention, is_attention
from bnn_lightning.core.drawn_layers import DrawnLayer
from bnn_lightning.core.layers import BayesianLayer, RandomLayer, copy_hooks, hooks_of, without_hooks
from bnn_lightning.core.methods.base import Method
from bnn_lightning.core.ops import kind_of, layer_kinds
from bnn_lightning.core.selection import (
    candidates,
    chosen_layers,
    lazy_layers,
    refuse_tied_weights,
    warn_of_asked_classes,
    warn_of_others,
)


def bayesianize(net: nn.Module, method: Method, only: str | Iterable[str] = "*") -> nn.Module:
    """A copy of ``net`` in which the layers whose names match ``only`` are random under ``method``.

    Layers of these kinds can become random: Linear and convolutions, transposed ones included (:class:`BayesianLayer`,
    also for kinds registered by :func:`~bnn_lightning.layer_kind`); MultiheadAttention; Embedding, Bilinear, RNN, LSTM
    and GRU, of whose weights one draw serves a forward pass; and classes derived from these that neither change what
    they compute nor hold other tensors or modules. Their values, trained or not, become the posterior means, unless the
    method draws the means itself. A layer that is used in two places stays one layer, and tensors that are not trained
    (``requires_grad`` false) give posteriors that are not. ``net`` is not changed. A warning names other layers with
    weights: these do not change.

    Weights with parametrisations, such as weight norm and spectral norm, and pruned ones become random as they are:
    their values are the means, and the parametrisation ends there, because it would hold for the mean and for no draw.

    Some methods have a noise variance for each channel that was flattened into a linear layer. The number of channels
    is known where convolution, Flatten and linear layer are in the same ``nn.Sequential``; elsewhere each input feature
    counts as a channel.

    Args:
        net: any network; ``bayesianize(resnet18(), LRT())`` works.
        method: for example ``LRT(prior_sigma=0.1)``.
        only: one pattern for layer names or several, with wildcards: ``"fc*"``, ``["conv1", "fc3"]``. A pattern after
            ``!`` leaves layers out: ``["*", "!head"]``. A class stands for all layers of it. The scales and shifts of
            norm layers are random where ``only`` has their class, as in ``["*", "BatchNorm2d"]``; a normal prior of
            scales is around 1.

    Raises:
        ValueError: when ``method`` is none, when a pattern of ``only`` matches no layer that can be random, when two
            layers share a weight, or when the sizes of a lazy layer are not known yet.
    """
    if not isinstance(method, Method):
        got = f"the class {method.__name__}" if isinstance(method, type) else type(method).__name__
        raise ValueError(f"method must be an object, such as LRT(), got {got}.")
    if method.noise_on not in ("weights", "inputs", "outputs"):
        raise ValueError(
            f"noise_on of {type(method).__name__} must be weights, inputs or outputs, got {method.noise_on!r}."
        )
    patterns = [only] if isinstance(only, str) else list(only)
    if lazy := lazy_layers(net):
        raise ValueError(
            f"net must know the sizes of its layers, got the lazy {lazy[0]}; run a batch through it first."
        )
    _refuse_functions_with_modules(net)
    names, norms = candidates(net)
    chosen = chosen_layers(names, norms, patterns)
    refuse_tied_weights(net, chosen, names)
    warn_of_asked_classes(net, {type(layer).__name__ for layer in chosen})
    if "*" in patterns:
        warn_of_others(net, {part for layer in (*names, *norms) for part in layer.modules()})
    channels = _flattened_channels(net)
    return _copy_with(net, {layer: _random(layer, method, channels.get(layer)) for layer in chosen})


def _random(layer: nn.Module, method: Method, channels: int | None) -> RandomLayer:
    layer = _copy_with(without_hooks(layer, but=_COMPUTE_WEIGHTS), {})
    _end_parametrisations(layer)
    if kind_of(layer, layer_kinds()) is not None:
        return BayesianLayer(layer, method, channels)
    return RandomAttention(layer, method) if is_attention(layer) else DrawnLayer(layer, method)


def to_plain(net: nn.Module, keep: Mapping[str, Tensor] | None = None) -> nn.Module:
    """The deterministic network at the posterior means: a copy of ``net`` in plain layers, the inverse of bayesianize.

    Args:
        net: a network with Bayesian layers.
        keep: boolean masks by the names of :func:`~bnn_lightning.random_tensors`, each of its tensor's shape; weights
            where the mask is false are 0 in the result. Tensors without a mask do not change.
    """
    plain_layers: dict[nn.Module, nn.Module] = {}
    for name, layer in net.named_modules():
        if isinstance(layer, RandomLayer):
            values: dict[str, Tensor] = {}
            for tensor_name, posterior in layer.tensors().items():
                mask = (keep or {}).get(f"{name}.{tensor_name}".removeprefix("."))
                mean = posterior.mean.detach().clone()
                values[tensor_name] = mean if mask is None else mean * mask
            plain = layer.plain(values).train(layer.training)
            for tensor_name, posterior in layer.tensors().items():
                plain.get_parameter(tensor_name).requires_grad_(_is_trained(posterior))
            plain_layers[layer] = plain
    return _copy_with(net, plain_layers)


def with_versions(tensors: Mapping[str, Tensor], *sources: Mapping[str, Tensor]) -> "OrderedDict[str, Tensor]":
    """``tensors`` with what modules such as torchvision's MNASNet read of the release that has saved them.

    Args:
        tensors: by name, from which a state_dict was rebuilt.
        sources: state_dicts; the first one that has the versions gives them.
    """
    state = OrderedDict(tensors)
    found = (getattr(source, "_metadata", None) for source in sources)
    state._metadata = next(filter(None, found), None)  # type: ignore[attr-defined]
    return state


def load_plain_state_dict(net: nn.Module, state_dict: Mapping[str, Tensor]) -> None:
    """Loads the weights of the deterministic twin into ``net``, a bayesianized network, in place.

    The method of each random layer forms new posteriors from the twin's values, so create optimisers afterwards; all
    other modules take the twin's tensors unchanged. What is not trained (``requires_grad`` false) stays so.

    Args:
        net: the network to load into.
        state_dict: of the same network before :func:`bayesianize`, such as a trained one; also as DataParallel or
            torch.compile save it, with names that begin with ``module.`` or ``_orig_mod.``.

    Raises:
        ValueError: when names or shapes are not those of ``net`` in plain layers.
    """
    twin = to_plain(net)
    expected, given = twin.state_dict(), unwrapped_names(state_dict, twin.state_dict())
    refuse_computed(given, expected)
    for name in sorted(expected.keys() | given.keys()):
        shapes = [list(tensors[name].shape) if name in tensors else "nothing" for tensors in (expected, given)]
        if shapes[0] != shapes[1]:
            raise ValueError(f"{name} must be {shapes[0]} as in this network, got {shapes[1]}.")
    given = with_versions(given, state_dict, expected)
    twin.load_state_dict(given)
    for name, layer in net.named_modules():
        if isinstance(layer, RandomLayer):
            layer.start_from(twin.get_submodule(name))
            for tensor_name in layer.tensors():
                del given[f"{name}.{tensor_name}".removeprefix(".")]
    net.load_state_dict(given, strict=False)


def inner_state_dict(contents: Any) -> Any:
    """The state_dict that a training checkpoint has among other things; what has none in it as it is."""
    for key in ("state_dict", "model_state_dict", "model", "network", "net"):
        if isinstance(contents, Mapping) and isinstance(contents.get(key), Mapping):
            contents = contents[key]
    return contents


def unwrapped_names(state_dict: Mapping[str, Any], expected: Iterable[str]) -> dict[str, Tensor]:
    """The tensors of ``state_dict`` by the names of the network, without what others put around or before them.

    A training checkpoint has the state_dict among other things; DataParallel puts ``module.`` before each name,
    torch.compile ``_orig_mod.``, a LightningModule the name of its attribute; an AveragedModel has a count beside them.
    Where no name is among those expected, and all begin with the same part, that part is taken off.

    Args:
        state_dict: of a network, wrapped or not.
        expected: the names of the network without a wrapper.

    Raises:
        ValueError: when it is a network and no state_dict.
    """
    if not isinstance(state_dict, Mapping):
        raise ValueError(f"state_dict must be tensors by name, got {type(state_dict).__name__}; use its state_dict().")
    names = set(expected)
    given = {name: value for name, value in inner_state_dict(state_dict).items() if isinstance(value, Tensor)}
    if "n_averaged" not in names:
        given.pop("n_averaged", None)
    if not any("_orig_mod" in name.split(".") for name in names):
        given = {".".join(part for part in name.split(".") if part != "_orig_mod"): given[name] for name in given}
    shorter = given
    while shorter and not names & shorter.keys() and len({name.partition(".")[0] for name in shorter}) == 1:
        shorter = {name.partition(".")[2]: value for name, value in shorter.items()}
    return shorter if names & shorter.keys() else given


def _is_trained(posterior: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in posterior.parameters())


def children_in_order(chain: nn.Module) -> list[tuple[str, nn.Module]]:
    """Names and modules of all children, a module that occurs twice also twice; ``named_children()`` gives it once."""
    return [(name, child) for name, child in chain._modules.items() if child is not None]


def _refuse_functions_with_modules(net: nn.Module) -> None:
    """Raises ValueError where a function that ``net`` holds has a module in it, which a copy would go on calling."""
    for name, module in net.named_modules():
        for attribute, value in vars(module).items():
            cells = [cell.cell_contents for cell in getattr(value, "__closure__", None) or ()]
            if isinstance(value, FunctionType) and any(isinstance(held, nn.Module) for held in cells):
                raise ValueError(
                    f"net must hold functions that a copy can take along, got {attribute} of {name or 'the network'}, "
                    "which holds a module and would go on calling it; make it a method."
                )


# Hooks that compute a weight before each forward pass; where the layer becomes random, that ends.
_COMPUTE_WEIGHTS = (WeightNorm, SpectralNorm, prune.BasePruningMethod)


def _copy_with(net: nn.Module, replacements: Mapping[nn.Module, nn.Module]) -> nn.Module:
    """A copy of ``net`` with the values of ``replacements`` in the places of their keys, whose hooks they are given.

    The replacements stand in the memo of the copy, as if they were what has been copied already: so they are found
    wherever ``net`` holds a layer, such as in a list or another object that its forward pass reads.
    """
    held = (value for module in net.modules() for value in vars(module).values())
    values = (part for value in held for part in (value if isinstance(value, list) else [value]))
    # Weights that hooks have computed, which torch does not copy.
    memo: dict[int, Any] = {
        id(value): value.detach().clone() for value in values if isinstance(value, Tensor) and not value.is_leaf
    }
    memo |= {id(layer): other for layer, other in replacements.items()}
    try:
        copied = copy.deepcopy(net, memo)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"net must be a network that can be copied, got one that cannot: {error}.") from error
    for layer, other in replacements.items():
        # Copied last, and by the same memo: a hook may be a method of the network.
        copy_hooks(copy.deepcopy(hooks_of(layer, without=_COMPUTE_WEIGHTS), memo), other)
    return copied


# Names of the tensors that weights are computed from: of parametrisations, and of the hooks that were before them.
_ORIGINAL = re.compile(r"(.*\.|)(?:parametrizations\.(\w+)\.original\d?|(\w+)_(?:g|v|orig))")


def refuse_computed(given: Collection[str], expected: Collection[str]) -> None:
    """Raises ValueError where ``given`` has, for a weight that is ``expected``, the tensors it was computed from."""
    for name in given:
        found = _ORIGINAL.fullmatch(name)
        weight = found[1] + (found[2] or found[3]) if found else name
        if weight in expected and weight not in given:
            raise ValueError(
                f"{weight} must be among the weights of the twin, got {name}, from which it is computed; save the "
                "network after torch.nn.utils.parametrize.remove_parametrizations, or remove_weight_norm."
            )


def computed_weights(net: nn.Module) -> dict[str, Tensor]:
    """The state_dict of ``net``, where parametrisations end: it has the weights that they compute as its own."""
    for layer in list(net.modules()):
        _end_parametrisations(layer)
    return net.state_dict()


def _end_parametrisations(layer: nn.Module) -> None:
    """Gives ``layer`` the weights that its parametrisations compute, as its own."""
    was_training = layer.training
    layer.eval()  # a spectral norm goes on with its power iteration in training
    if parametrize.is_parametrized(layer):
        # torch's own way to remove them changes the class of the layer, which the network that was copied shares.
        own: Any = layer.parametrizations
        values = {name: nn.Parameter(getattr(layer, name).detach(), _is_trained(own[name])) for name in own}
        layer.__class__ = type(layer).__bases__[0]
        del layer.parametrizations
        for name, value in values.items():
            layer.register_parameter(name, value)
    for hook in list(layer._forward_pre_hooks.values()):
        if isinstance(hook, WeightNorm):
            remove_weight_norm(layer, hook.name)
        elif isinstance(hook, SpectralNorm):
            remove_spectral_norm(layer, hook.name)
        elif isinstance(hook, prune.BasePruningMethod):
            prune.remove(layer, hook._tensor_name)
    layer.train(was_training)


_CONVOLUTIONS = (
    *(nn.Conv1d, nn.Conv2d, nn.Conv3d),
    *(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
)
# Modules of torch whose layers leave the number of channels as it is, but for these two.
_KEEP_CHANNELS = frozenset(
    f"torch.nn.modules.{name}"
    for name in (
        *("activation", "batchnorm", "channelshuffle", "dropout", "instancenorm", "normalization"),
        *("padding", "pooling", "upsampling"),
    )
)
_CHANGE_CHANNELS = (nn.GLU, nn.MultiheadAttention)


def _keeps_channels(layer: nn.Module) -> bool:
    """Whether a layer between convolution and Flatten is known to give as many channels as it gets."""
    modules = {kind.__module__ for kind in type(layer).__mro__}
    keeps = isinstance(layer, nn.Identity) or bool(modules & _KEEP_CHANNELS)
    return keeps and not isinstance(layer, _CHANGE_CHANNELS)


def _flattened_channels(net: nn.Module) -> dict[nn.Module, int]:
    """For each linear layer behind a convolution and a Flatten in one ``nn.Sequential``, the convolution's channels."""
    channels_of: dict[nn.Module, int] = {}
    for chain in net.modules():
        # With duplicates: a layer that occurs twice follows other layers at both places.
        modules = (module for _, module in chain.named_modules(remove_duplicate=False))
        leaves = [module for module in modules if not isinstance(module, nn.Sequential)]
        if not isinstance(chain, nn.Sequential) or any(list(leaf.children()) for leaf in leaves):
            continue
        channels = flattened = None
        for leaf in leaves:
            if isinstance(leaf, _CONVOLUTIONS):
                channels = leaf.out_channels
            elif isinstance(leaf, nn.Flatten):
                flattened = channels
            elif isinstance(leaf, nn.Linear):
                if flattened and leaf.in_features % flattened == 0:
                    channels_of[leaf] = flattened
                channels = flattened = None
            elif not _keeps_channels(leaf):
                channels = flattened = None
    return channels_of
