"""Networks without the weights that carry no signal: what removing them costs, and a smaller network in plain torch."""

import copy
import io
import json
import math
import time
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from inspect import signature
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from bnn_lightning.files import write_whole
from bnn_lightning.layers import in_order, plain
from bnn_lightning.sparsity import masks_without, weight_log_alphas

_WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d)
_BATCH_NORM = (nn.BatchNorm1d, nn.BatchNorm2d)
# What may stand between weighted layers: it treats channels apart and makes a constant channel of a constant one.
_ELEMENTWISE = (
    nn.Identity,
    nn.Dropout,
    nn.Dropout2d,
    nn.ReLU,
    nn.LeakyReLU,
    nn.ELU,
    nn.GELU,
    nn.SiLU,
    nn.Sigmoid,
    nn.Softplus,
    nn.Tanh,
)
_POOLING = (nn.MaxPool1d, nn.MaxPool2d, nn.AvgPool1d, nn.AvgPool2d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d)


class Select(nn.Module):
    """Keeps some features of ``(batch, features)``: those that the next layer has weights for."""

    indices: Tensor

    def __init__(self, indices: Tensor):
        super().__init__()
        self.register_buffer("indices", indices)

    def forward(self, x: Tensor) -> Tensor:
        return x.index_select(-1, self.indices)

    def extra_repr(self) -> str:
        return f"{len(self.indices)} features"


def shrink(net: nn.Module) -> nn.Sequential:
    """A smaller network with the same outputs in eval mode, for a chain of plain layers many of whose weights are 0.

    Three steps, until nothing changes: a unit (or channel) whose incoming weights are all 0 is a constant, which is
    folded into the next layer's bias; a unit without outgoing weights is removed, with its weights; features that a
    linear layer has no weights for are not read. Batch norm is folded into the layer before it.

    Raises:
        ValueError: when ``net`` is no chain of layers that this is known for.
    """
    chain = _chain(net)
    places = [place for place, (_, module) in enumerate(chain) if isinstance(module, _WEIGHTED)]
    changed = True
    while changed:
        changed = False
        for here, there in pairwise(places):
            between = [module for _, module in chain[here + 1 : there]]
            changed |= _join(chain[here][1], between, chain[there][1])
    for place in reversed(places):
        name, layer = chain[place]
        if isinstance(layer, nn.Linear):
            read = layer.weight.ne(0).any(0)
            read[0] |= not read.any()  # no layer is left without an input
            if not read.all():
                _keep_columns(layer, read)
                chain.insert(place, (f"{name}_select", Select(read.nonzero().flatten())))
    return nn.Sequential(OrderedDict(chain)).to(memory_format=torch.channels_last)


def _chain(net: nn.Module) -> list[tuple[str, Any]]:
    """Copies of the layers of nested ``nn.Sequential`` in their order, each with a name, batch norm folded in."""
    chain: list[tuple[str, Any]] = []
    net = copy.deepcopy(net).eval()
    for path, module in net.named_modules(remove_duplicate=False):
        name = path.replace(".", "_") or "layer"
        while name in dict(chain):
            name += "_"
        if isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward:
            continue
        previous = chain[-1][1] if chain else None
        if isinstance(module, _BATCH_NORM) and isinstance(previous, _WEIGHTED):
            fuse: Any = fuse_linear_bn_eval if isinstance(previous, nn.Linear) else fuse_conv_bn_eval
            chain[-1] = (chain[-1][0], fuse(previous, module))
        elif type(module) in (*_WEIGHTED, *_ELEMENTWISE, *_POOLING, nn.Flatten):
            if any(module is other for _, other in chain if isinstance(module, _WEIGHTED)):
                raise ValueError(f"network uses {name} in two places; a smaller one is made of chains only.")
            chain.append((name, module))
            _check_order(chain)
        else:
            raise ValueError(
                "network must be a chain (nn.Sequential) of linear layers, convolutions, pooling and activations to be "
                f"made smaller, got {type(module).__name__} at {name}."
            )
    return chain


def _check_order(chain: list[tuple[str, Any]]) -> None:
    """Refuses linear layers that would read something else than units, or whole flattened images."""
    name, layer = chain[-1]
    if not isinstance(layer, nn.Linear):
        return
    before = [module for _, module in chain[:-1]]
    last = max((place for place, module in enumerate(before) if isinstance(module, _WEIGHTED)), default=None)
    if last is None:
        return
    flattened = any(isinstance(module, nn.Flatten) for module in before[last:])
    if flattened == isinstance(before[last], nn.Linear):
        wanted, kind = "no Flatten" if flattened else "a Flatten", type(before[last]).__name__
        raise ValueError(f"network must have {wanted} between {kind} and {name} to be made smaller.")


def _join(layer: Any, between: list[nn.Module], after: Any) -> bool:
    """Folds and removes what ``layer`` does not need to give to ``after``; whether anything was."""
    if getattr(layer, "groups", 1) != 1 or getattr(after, "groups", 1) != 1:
        return False
    with torch.no_grad():
        units = len(layer.weight)
        outgoing = after.weight.reshape(len(after.weight), units, -1)
        constant = ~layer.weight.flatten(1).ne(0).any(1) & outgoing.ne(0).any(2).any(0)
        value = layer.weight.new_zeros(units) if layer.bias is None else layer.bias.detach().clone()
        for module in between:
            value = module(value) if isinstance(module, _ELEMENTWISE) else value
        if _bends_constants(after) or any(_bends_constants(module) for module in between):
            constant &= value == 0  # another constant would not stay one
        if constant.any():
            folded = (outgoing[:, constant].double().sum(2) * value[constant].double()).sum(1)
            bias = after.weight.new_zeros(len(folded)) if after.bias is None else after.bias
            after.bias = nn.Parameter((bias.double() + folded).to(bias.dtype))
            outgoing[:, constant] = 0
            after.weight.copy_(outgoing.view(after.weight.shape))
        used = outgoing.ne(0).any(2).any(0)
        used[0] |= not used.any()  # no layer is left without a unit
        if used.all():
            return bool(constant.any())
        layer.weight = nn.Parameter(layer.weight[used].clone())
        layer.bias = None if layer.bias is None else nn.Parameter(layer.bias[used].clone())
        if isinstance(layer, nn.Linear):
            layer.out_features = len(layer.weight)
        else:
            layer.out_channels = len(layer.weight)
        _keep_columns(after, used.repeat_interleave(after.weight.shape[1] // units))
    return True


def _keep_columns(layer: Any, kept: Tensor) -> None:
    layer.weight = nn.Parameter(layer.weight.detach()[:, kept].clone())
    if isinstance(layer, nn.Linear):
        layer.in_features = layer.weight.shape[1]
    else:
        layer.in_channels = layer.weight.shape[1]


def _bends_constants(module: Any) -> bool:
    """Whether a constant but 0 comes out as another: zeros set around it, or pooling that divides by another number."""
    if isinstance(module, nn.Conv1d | nn.Conv2d):
        padded = module.padding == "same" or (not isinstance(module.padding, str) and any(module.padding))
        return padded and module.padding_mode == "zeros"
    if isinstance(module, nn.AvgPool1d | nn.AvgPool2d):
        padded = any(module.padding) if isinstance(module.padding, tuple) else module.padding > 0
        return padded or getattr(module, "divisor_override", None) is not None
    return False


def write_dense(net: nn.Module, path: Path, example: Tensor, record: Mapping[str, Any]) -> None:
    """Saves ``net`` so that plain torch loads it: ``torch.export.load(path).module()``, for any batch size.

    Args:
        net: the network.
        path: a file, conventionally ``.pt2``.
        example: a batch of 2 or more images as the network takes them.
        record: plain values that go into the file as ``bnn_lightning.json``, beside the layers of a chain.
    """
    batch = torch.export.Dim("batch")
    # The file holds the example, with the whole memory that it is a part of.
    program = torch.export.export(net.eval(), (example.clone(),), dynamic_shapes=({0: batch},))
    content = io.BytesIO()
    with warnings.catch_warnings():
        # Weights in channels_last memory make torch 2.14 warn; they are whole in the file all the same.
        warnings.filterwarnings("ignore", "No complete tensor found")
        text = json.dumps(dict(record) | {"layers": _described(net)}, indent=2)
        torch.export.save(program, content, extra_files={_RECORD: text})
    write_whole(path, content.getbuffer())


def load_dense(path: str | Path) -> nn.Sequential:
    """The network in a file of :func:`export_dense`, without running anything that a stranger may have put into it.

    ``torch.export.load`` unpickles some parts of such a file and evaluates others, which can run any code: keep it for
    files of your own. Here the layers are built from what ``bnn_lightning.json`` says of them, if they are of known
    kinds, and filled with the numbers of ``data/weights``; nothing else is looked at.

    Raises:
        ValueError: when the file cannot be read, or is not of a chain of known layers.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            root = archive.namelist()[0].partition("/")[0]
            layers = json.loads(archive.read(f"{root}/extra/{_RECORD}"))["layers"]
            weights = json.loads(archive.read(f"{root}/data/weights/model_weights_config.json"))["config"]
            net = nn.Sequential(OrderedDict((layer["name"], _built(layer)) for layer in layers))
            values = {
                name: _tensor(one, archive.read(f"{root}/data/weights/{one['path_name']}"))
                for name, one in weights.items()
            }
        net.load_state_dict(values)
    except Exception as error:  # a damaged archive can raise nearly anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path} cannot be read as an exported network ({reason}).") from None
    return net.eval()


_RECORD = "bnn_lightning.json"
_KINDS: dict[str, Any] = {kind.__name__: kind for kind in (*_WEIGHTED, *_ELEMENTWISE, *_POOLING, nn.Flatten, Select)}
_DTYPES = {5: torch.int64, 7: torch.float32, 8: torch.float64}  # in torch's numbering of exported types


def _described(net: nn.Module) -> list[dict[str, Any]] | None:
    """Names, kinds and settings of the layers of a chain; None for any other network."""
    layers = []
    for name, module in in_order(net):
        settings = {key: getattr(module, key, None) for key in signature(type(module).__init__).parameters}
        if "bias" in settings:
            settings["bias"] = settings["bias"] is not None
        if isinstance(module, Select):
            settings["indices"] = len(module.indices)
        plain = {key: value for key, value in settings.items() if value is not None}
        layers.append({"name": name, "kind": type(module).__name__, "settings": plain})
    is_chain = type(net) is nn.Sequential and all(type(module) in _KINDS.values() for module in net)
    return layers if is_chain else None


def _built(layer: Mapping[str, Any]) -> nn.Module:
    settings = {key: tuple(value) if isinstance(value, list) else value for key, value in layer["settings"].items()}
    if layer["kind"] == Select.__name__:
        return Select(torch.zeros(settings["indices"], dtype=torch.int64))
    return _KINDS[layer["kind"]](**settings)


def _tensor(meta: Mapping[str, Any], content: bytes) -> Tensor:
    sizes, strides = ([size["as_int"] for size in meta["tensor_meta"][key]] for key in ("sizes", "strides"))
    return torch.frombuffer(bytearray(content), dtype=_DTYPES[meta["tensor_meta"]["dtype"]]).as_strided(sizes, strides)


def export_dense(
    net: nn.Module, keep: Mapping[str, Tensor], loader: Any, path: Path, record: Mapping[str, Any]
) -> tuple[list[dict[str, Any]], float]:
    """Writes the smaller network of the kept weights, and measures it beside the one as trained and the one with zeros.

    Args:
        net: a network with random layers.
        keep: masks over its weights, as :func:`bnn_lightning.sparsity.masks` gives them.
        loader: test images and labels; its first batch is what latency is measured on.
        path: the file of the smaller network.
        record: plain values that go into the file.

    Returns:
        a row for each of the three networks, and the largest difference between a logit of the smaller network and of
        the one with zeros.
    """
    masked = plain(net, keep)
    nets = {"mean weights": plain(net), "kept weights": masked, "dense": shrink(masked)}
    images, _ = next(iter(loader))
    rows: dict[str, dict[str, Any]] = {}
    logits: dict[str, Tensor] = {}
    with TemporaryDirectory() as folder:
        for name, one in nets.items():
            file = path if name == "dense" else Path(folder) / "network.pt2"
            write_dense(one, file, images[:1].expand(2, *images.shape[1:]), record)
            logits[name], labels = _logits(one, loader)
            rows[name] = {
                "network": name,
                "parameters": sum(parameter.numel() for parameter in one.parameters()),
                "accuracy": (logits[name].argmax(-1) == labels).float().mean().item(),
                "bytes": file.stat().st_size,
                "batch": len(images),
            }
    for column, batch in (("ms_1", images[:1]), ("ms_batch", images)):
        for name, milliseconds in latencies(nets, batch).items():
            rows[name][column] = milliseconds
    return list(rows.values()), (logits["dense"] - logits["kept weights"]).abs().max().item()


PRUNING_SHARES = (0.0, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99)


def pruning_sweep(net: nn.Module, loader: Any, shares: Iterable[float]) -> list[dict[str, float]]:
    """Accuracy and NLL of the mean weights without each share of them, those of lowest |mu| / sigma removed first.

    Blundell et al. 2015 (arXiv:1505.05424), section 5.1 and table 2.
    """
    ranked = torch.cat([values.flatten() for values in weight_log_alphas(net).values()]).sort().values
    rows = []
    for share in shares:
        keep = masks_without(net, share)
        logits, labels = _logits(plain(net, keep), loader)
        kept = sum(int(mask.sum()) for mask in keep.values())
        rows.append(
            {
                "removed": share,
                "kept": kept,
                "min_signal_to_noise": math.exp(-0.5 * ranked[kept - 1].item()) if kept else math.inf,
                "accuracy": (logits.argmax(-1) == labels).float().mean().item(),
                "nll": F.cross_entropy(logits, labels).item(),
            }
        )
    return rows


def _logits(net: nn.Module, loader: Iterable[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Logits ``(images, classes)`` and labels over a whole loader."""
    net.eval()
    with torch.no_grad():
        parts = [(net(images), labels) for images, labels in loader]
    return torch.cat([logits for logits, _ in parts]), torch.cat([labels for _, labels in parts])


def latencies(nets: Mapping[str, nn.Module], x: Tensor, rounds: int = 30) -> dict[str, float]:
    """Milliseconds of a forward pass of each network over the batch ``x``: medians, measured in turns."""
    seconds: dict[str, list[float]] = {name: [] for name in nets}
    with torch.inference_mode():
        for _ in range(rounds + 3):
            for name, net in nets.items():
                start = time.perf_counter()
                net(x)
                seconds[name].append(time.perf_counter() - start)
    return {name: 1000 * sorted(times[3:])[rounds // 2] for name, times in seconds.items()}  # the first 3 warm up
