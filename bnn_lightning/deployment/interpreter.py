"""Program, the graph in a .pt2 file, computed node by node by operators of a list, so that nothing in the file can run.

``torch.export.load`` unpickles parts of such a file, and evaluates expressions in it. Here the description of the graph
is data: a node is the name of one of torch's operators, and its arguments are numbers and results of earlier nodes.
"""

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bnn_lightning.deployment.archive import DTYPES, Archive

SCHEMA = 8
"""The version of torch.export's description of a graph that is known here, its major number."""

_KNOWN = """
abs adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d add addcdiv
addcmul addmm alias all amax amin any arange argmax argmin avg_pool1d avg_pool2d avg_pool3d batch_norm bmm
broadcast_to cat chunk clamp clamp_max clamp_min clone constant_pad_nd contiguous conv1d conv2d conv3d
conv_transpose1d conv_transpose2d conv_transpose3d copy cos cumsum detach diag_embed diagonal div dropout einsum elu
embedding eq erf exp expand expand_as expm1 eye feature_dropout flatten floor floor_divide full full_like gather ge
gelu glu group_norm gt hardsigmoid hardswish hardtanh index_select instance_norm isinf isnan layer_norm le leaky_relu
lift_fresh_copy linalg_cholesky_ex linear log log1p log_sigmoid _log_softmax log_softmax logical_and logical_not
logical_or logsumexp lt masked_fill matmul max max_pool1d max_pool1d_with_indices max_pool2d max_pool2d_with_indices
max_pool3d_with_indices maximum mean min minimum mish mm movedim mT mul mv nan_to_num narrow ndtri ne neg new_full
new_ones new_zeros norm numpy_T ones ones_like pad permute pixel_shuffle pixel_unshuffle pow prelu reciprocal relu
relu6 remainder repeat repeat_interleave reshape rms_norm round rsqrt rsub scaled_dot_product_attention select selu
sigmoid sign silu sin slice _softmax softmax softplus softsign special_entr special_ndtri split split_with_sizes sqrt
square squeeze stack std sub sum swapaxes sym_size t tanh to _to_copy transpose tril type_as unbind unflatten
unsqueeze upsample_bilinear2d upsample_nearest2d var view view_as where zeros zeros_like
"""
_ATEN = frozenset(_KNOWN.split())
_SIZES: dict[str, Callable[..., Any]] = {name: getattr(operator, name) for name in ("add", "sub", "mul", "floordiv")}
_SKIPPED = ("_assert_tensor_metadata", "_assert_scalar", "promote_types", "sym_constrain_range_for_size")
_MEMORY = {1: torch.contiguous_format, 2: torch.channels_last, 3: torch.channels_last_3d, 4: torch.preserve_format}


class UnknownOperatorError(ValueError):
    """An operator that is not on the list."""


class _Name(str):
    """A result of an earlier node, in arguments."""


class _Node(NamedTuple):
    """``outputs = call(*args, **kwargs)``, after which nothing needs the values ``done``."""

    call: Callable[..., Any]
    args: list[Any]
    kwargs: dict[str, Any]
    outputs: list[str | None]
    done: list[str]


class Program:
    """The graph that a .pt2 file describes: ``program(x)`` gives its outputs in their order. Threads may share it.

    Args:
        archive: the file.

    Raises:
        UnknownOperatorError: when it has an operator that is not known here.
        ValueError: when it is of another version, or damaged.
    """

    def __init__(self, archive: Archive):
        description = archive.json("models/model.json")
        if description["schema_version"]["major"] != SCHEMA:
            raise ValueError(f"version {description['schema_version']['major']} of torch's format, not {SCHEMA}")
        module = description["graph_module"]
        values = archive.tensors("weights") | archive.tensors("constants")
        self._constants: dict[str, Any] = {}
        inputs = []
        for spec in module["signature"]["input_specs"]:
            ((kind, said),) = spec.items()
            if kind == "user_input":
                inputs.append(said["arg"]["as_tensor"]["name"])
            else:
                named = {
                    "parameter": "parameter_name",
                    "buffer": "buffer_name",
                    "tensor_constant": "tensor_constant_name",
                }
                self._constants[said["arg"]["name"]] = values[said[named[kind]]]
        self._graph = _Graph(module["graph"], inputs)

    def __call__(self, *inputs: Tensor) -> list[Tensor]:
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            return self._graph(inputs, self._constants)


class _Graph:
    """Nodes in their order.

    Args:
        description: that of torch.export.
        inputs: names of what it is called with.
    """

    def __init__(self, description: Mapping[str, Any], inputs: Sequence[str]):
        self._inputs = list(inputs)
        self._outputs = [_argument(output) for output in description["outputs"]]
        self._nodes: list[_Node] = []
        needed = {str(name) for name in _names(self._outputs)}
        for said in reversed(description["nodes"]):
            node = _node(said)
            if node is None:
                continue
            names = {str(name) for name in _names([node.args, list(node.kwargs.values())])} | set(
                filter(None, node.outputs)
            )
            self._nodes.insert(0, node._replace(done=sorted(names - needed)))
            needed |= names

    def __call__(self, inputs: Sequence[Any], constants: Mapping[str, Any]) -> list[Any]:
        values = dict(constants) | dict(zip(self._inputs, inputs, strict=True))
        for call, args, kwargs, outputs, done in self._nodes:
            result = call(
                *(_filled(arg, values) for arg in args), **{key: _filled(arg, values) for key, arg in kwargs.items()}
            )
            results = result if len(outputs) > 1 or isinstance(result, list) else [result]
            values.update((name, part) for name, part in zip(outputs, results, strict=True) if name is not None)
            for name in done:
                del values[name]
        return [_filled(output, values) for output in self._outputs]


def _node(said: Mapping[str, Any]) -> _Node | None:
    """None for checks, which have no results."""
    target, given = str(said["target"]), said["inputs"]
    if target == "torch.ops.higher_order.wrap_with_autocast":
        return _without_autocast(said)
    call = _operator(target)
    if call is None:
        return None
    args = [_argument(part["arg"]) for part in given if part.get("kind") != 2]
    kwargs = {part["name"]: _argument(part["arg"]) for part in given if part.get("kind") == 2}
    return _Node(call, args, kwargs, _outputs(said), [])


def _operator(target: str) -> Callable[..., Any] | None:
    """The operator of that name; None of one that checks alone."""
    library, _, name = target.rpartition(".")
    if library == "_operator" and name in _SIZES:
        return _SIZES[name]
    space, _, base = library.rpartition(".")
    if space == "torch.ops.aten":
        if base in _SKIPPED:
            return None
        if base.removesuffix("_") in _ATEN or base in _ATEN:
            packet = getattr(torch.ops.aten, base)
            if name in packet.overloads():  # and no other attribute of it
                call: Callable[..., Any] = getattr(packet, name)
                return call
    raise UnknownOperatorError(target)


def _without_autocast(said: Mapping[str, Any]) -> _Node:
    """A part of the graph that autocast does not reach: a part like any other, as a program runs without it."""
    _, _, enabled, _, part, *operands = (each["arg"] for each in said["inputs"])
    if enabled["as_bool"]:
        raise UnknownOperatorError(f"{said['target']} that computes in half precision")
    inner = part["as_graph"]["graph"]
    graph = _Graph(inner, [each["as_tensor"]["name"] for each in inner["inputs"]])
    return _Node(lambda *given: graph(given, {}), [_argument(each) for each in operands], {}, _outputs(said), [])


def _outputs(said: Mapping[str, Any]) -> list[str | None]:
    names: list[str | None] = []
    for output in said["outputs"]:
        ((kind, value),) = output.items()
        if kind == "as_tensors":
            names += [part["name"] for part in value]
        elif kind == "as_tensor":
            names.append(value["name"])
        else:
            names.append(value["as_name"] if kind == "as_sym_int" else None)
    return names


def _argument(said: Mapping[str, Any]) -> Any:
    """The value of an argument, with a :class:`_Name` for each result of an earlier node."""
    ((kind, value),) = said.items()
    return _ARGUMENTS[kind](value)


def _plain(value: Any) -> Any:
    return value


def _size(value: Mapping[str, Any]) -> Any:
    return _Name(value["as_name"]) if "as_name" in value else value["as_int"]


def _device(value: Mapping[str, Any]) -> torch.device:
    if value["type"] != "cpu":
        raise ValueError(f"it computes on {value['type']}")
    return torch.device("cpu")


def _strided(value: int) -> torch.layout:
    if value != 7:
        raise ValueError(f"it has tensors of layout {value}")
    return torch.strided


_ARGUMENTS: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("as_int", "as_ints", "as_bool", "as_bools", "as_string"), _plain),
    "as_none": lambda _: None,
    "as_float": float,  # infinite ones are texts
    "as_floats": lambda values: [float(value) for value in values],
    "as_tensor": lambda value: _Name(value["name"]),
    "as_tensors": lambda values: [_Name(value["name"]) for value in values],
    "as_optional_tensor": _argument,
    "as_optional_tensors": lambda values: [_argument(value) for value in values],
    "as_sym_int": _size,
    "as_sym_ints": lambda values: [_size(value) for value in values],
    "as_scalar_type": DTYPES.__getitem__,
    "as_memory_format": _MEMORY.__getitem__,
    "as_layout": _strided,
    "as_device": _device,
}


def _names(value: Any) -> list[_Name]:
    """All names in lists of arguments."""
    if isinstance(value, list):
        return [name for part in value for name in _names(part)]
    return [value] if isinstance(value, _Name) else []


def _filled(argument: Any, values: Mapping[str, Any]) -> Any:
    """An argument with results in place of their names."""
    if isinstance(argument, _Name):
        return values[argument]
    return [_filled(part, values) for part in argument] if isinstance(argument, list) else argument
