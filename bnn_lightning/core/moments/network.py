"""MomentNetwork, a network as one function from inputs to mean and variance of its outputs, without a draw."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn

from bnn_lightning.core.layers import RandomLayer, has_hooks
from bnn_lightning.core.moments.calls import AFFINE, CALLS, ONE_TO_ONE, QUERIES, check_arguments
from bnn_lightning.core.moments.covariance import OutputCovariance, is_elementwise, last_stages
from bnn_lightning.core.moments.in_place import Value, changes_its_input, follow_change
from bnn_lightning.core.moments.norms import ChannelAffine
from bnn_lightning.core.moments.rules import Moments, MomentsError, called, has_rule, rule_of
from bnn_lightning.core.moments.weights import KnownWeights, RandomWeights, rule_of_plain_layer, rule_of_random_layer
from bnn_lightning.core.ops import kind_of, layer_kinds
from bnn_lightning.core.ops.convolution import ConvOp
from bnn_lightning.core.whole_network import evaluating
from bnn_lightning.wording import first_line


class MomentNetwork(nn.Module):
    """Mean and variance of a network's outputs in one pass: ``mean, variance = MomentNetwork(net)(x)``.

    Mean and variance of every activation are propagated from layer to layer as if activations were independent
    Gaussians (Wang & Manning 2013, "Fast dropout training"; Wu et al. 2019, arXiv:1810.03958). At the network's end
    noise that several units share counts once (:meth:`covariance`). Other correlations are ignored: of the
    outputs of a convolution, which share its weights; of two paths to a sum; of weights that SWAG draws
    together. What depends on weights alone is computed here, once: later changes of ``net`` are not seen. Batch norm
    behind a convolution becomes part of its weights. All of it is torch's functions without branches on values, so
    that ``torch.export`` takes it.

    Args:
        net: any network of random and plain layers that ``torch.fx`` can trace: chains, and graphs of layers, sums and
            shapes whose control flow does not depend on values. It is taken in eval mode.

    Raises:
        MomentsError: when a layer or function has no rule, or the network cannot be traced.
    """

    def __init__(self, net: nn.Module):
        super().__init__()
        for name, module in net.named_modules():
            if isinstance(module, RandomLayer):
                _refuse_hooks(name, module)
                rule_of_random_layer(module, name)  # refuses before the trace, which may fail for a lesser reason
        with torch.no_grad(), evaluating(net):
            propagation = _Propagation(net)
        self.propagate, self.end = propagation.module, propagation.end
        self._changes_inputs = propagation.changes_memory

    @property
    def has_covariance(self) -> bool:
        """Whether covariances of the outputs are known: the network ends with a linear layer of at most 64 outputs."""
        return self.end is not None

    def covariance(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean ``(batch, outputs)`` and covariance ``(batch, outputs, outputs)`` of the outputs.

        Where :attr:`has_covariance` is false, that of independent outputs. See
        :class:`~bnn_lightning.core.moments.covariance.OutputCovariance`.
        """
        if self.end is None:
            mean, variance = self(x)
            return mean, torch.diag_embed(variance)
        mean, covariance = self.end(self.propagate(self._own(x)))
        return mean, covariance

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of each output, ``(batch, outputs)``, for inputs ``(batch, ...)``."""
        if self.end is not None:
            mean, covariance = self.covariance(x)
            return mean, covariance.diagonal(dim1=-2, dim2=-1)
        outputs = self.propagate(self._own(x))
        if not isinstance(outputs, Moments):
            return outputs, torch.zeros_like(outputs)
        return outputs.mean, outputs.variance

    def _own(self, x: Tensor) -> Tensor:
        return x.clone() if self._changes_inputs else x


class _Whole(nn.Module):
    """Calls a network, so that a trace sees its hooks."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Any:
        return self.net(x)


class _Tracer(fx.Tracer):
    """Takes random layers and modules with a rule as they are, and goes into all others that are not torch's own."""

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return Value(node, self)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, RandomLayer) or _has_any_rule(m) or super().is_leaf_module(m, module_qualified_name)


class _Called(nn.Module):
    """A rule that is a function, as a module of a graph."""

    def __init__(self, function: Callable[..., Any]):
        super().__init__()
        self.function = function

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)


class _Propagation:
    """The graph of a network with each node that random values reach replaced by its rule."""

    def __init__(self, net: nn.Module):
        whole = _Whole(net)
        try:
            self.traced = _Tracer().trace(whole)
        except Exception as error:  # whatever a network does with what stands for its inputs
            raise MomentsError(f"a network that torch.fx cannot trace ({first_line(error)})") from error
        self.whole = whole
        self.parts = nn.ModuleDict()
        self.graph = fx.Graph()
        self.copies: dict[fx.Node, fx.Node] = {}
        self.random: set[fx.Node] = set()
        self.rules: dict[fx.Node, nn.Module] = {}
        self.end: OutputCovariance | None = None
        self.changes_memory = False
        for node in self.traced.nodes:
            if changes_its_input(node, self.whole):
                if self._is_reached(node):
                    follow_change(node, self.whole)
                else:
                    self.changes_memory = True  # torch itself does it, where nothing is random
            self.copies[node] = getattr(self, f"_{node.op}")(node)
        self.module = fx.GraphModule(self.parts, self.graph)

    def _placeholder(self, node: fx.Node) -> fx.Node:
        return self.graph.placeholder(node.name)

    def _output(self, node: fx.Node) -> fx.Node:
        if not isinstance(node.args[0], fx.Node):
            raise MomentsError("a network that gives several outputs")
        nodes, stages = last_stages(node.args[0], self.rules, self.random)
        if not nodes:
            return self.graph.output(self.copies[node.args[0]])
        self.end = OutputCovariance(stages)
        for part in reversed(nodes):
            self.graph.erase_node(self.copies[part])
            del self.parts[part.name]
        return self.graph.output(self.copies[nodes[0].args[0]])  # type: ignore[index]

    def _get_attr(self, node: fx.Node) -> fx.Node:
        owner, _, name = str(node.target).rpartition(".")
        value = getattr(self.whole.get_submodule(owner), name)
        self.parts.register_buffer(node.name, value.detach().clone(), persistent=False)
        return self.graph.get_attr(node.name)

    def _call_module(self, node: fx.Node) -> fx.Node:
        name = str(node.target).removeprefix("net.").removeprefix("net")
        module = self.whole.get_submodule(str(node.target))
        if not isinstance(module, RandomLayer) and not self._is_reached(node):
            if any(isinstance(part, RandomLayer) for part in module.modules()):
                raise MomentsError(_without_rule(called(name, module)))
            return self._call(node, copy.deepcopy(module).eval())
        self.random.add(node)
        if len(node.args) != 1 or node.kwargs:
            raise MomentsError(f"a network that gives {called(name, module)} several arguments")
        _refuse_hooks(name, module)
        rule = rule_of_random_layer(module, name) if isinstance(module, RandomLayer) else _rule(name, module)
        before: Any = node.args[0]
        if isinstance(rule, ChannelAffine) and self._takes_in(before):
            folded: Any = self.rules[before]
            # The layer's own place in the graph now gives what the norm gave.
            self.parts[before.name] = folded.followed_by(rule.scale, rule.shift)
            return self.copies[before]
        self.rules[node] = rule
        return self._call(node, rule)

    def _takes_in(self, before: fx.Node) -> bool:
        """Whether a norm behind this node can become part of its weights: of a convolution used for nothing else."""
        rule = self.rules.get(before)
        return isinstance(rule, RandomWeights | KnownWeights) and isinstance(rule.op, ConvOp) and len(before.users) == 1

    def _call_function(self, node: fx.Node) -> fx.Node:
        if not self._is_reached(node):
            copied = self.graph.node_copy(node, self.copies.__getitem__)
            if copied.target == "view":  # of activations in channels_last memory, too
                copied.target = "reshape"
            return copied
        rule, name = CALLS.get(node.target), getattr(node.target, "__name__", str(node.target))
        if rule is None:
            raise MomentsError(_without_rule(name))
        check_arguments(rule, name, node.args, node.kwargs)
        if rule is CALLS["mul"]:
            self._refuse_dependent_factors(node)
        if node.target not in QUERIES or node.args[0] not in self.random:
            self.random.add(node)
        return self._call(node, _Called(rule))

    _call_method = _call_function

    def _refuse_dependent_factors(self, product: fx.Node) -> None:
        factors = [self._origin(factor) for factor in product.args if isinstance(factor, fx.Node)]
        if len(factors) == 2 and factors[0] is factors[1]:
            raise MomentsError(
                "a network that multiplies activations by a function of themselves; F.silu(x), where that is meant by "
                "x * sigmoid(x), can be propagated"
            )

    def _origin(self, node: fx.Node) -> fx.Node:
        """The activations of which ``node`` is a function of each element by itself, whatever shape they have."""
        while True:
            before = [each for each in node.all_input_nodes if each in self.random]
            is_whole = node.target in ONE_TO_ONE or CALLS.get(node.target) in AFFINE
            if len(before) != 1 or not (is_whole or is_elementwise(node, self.rules)):
                return node
            node = before[0]

    def _is_reached(self, node: fx.Node) -> bool:
        """Whether an argument of ``node`` is random."""
        return any(before in self.random for before in node.all_input_nodes)

    def _call(self, node: fx.Node, part: nn.Module) -> fx.Node:
        self.parts[node.name] = part
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), self.copies.__getitem__)
        return self.graph.call_module(node.name, args, kwargs)


def _has_any_rule(module: nn.Module) -> bool:
    return has_rule(module) or kind_of(module, layer_kinds()) is not None


def _rule(name: str, module: nn.Module) -> nn.Module:
    """The rule of a module that is not random, for inputs that are."""
    rule = rule_of(module)
    if rule is None:
        if kind_of(module, layer_kinds()) is None:
            raise MomentsError(_without_rule(called(name, module)))
        rule = rule_of_plain_layer(module)
    return rule if isinstance(rule, nn.Module) else _Called(rule)


def _without_rule(what: str) -> str:
    return f"a network with {what}, through which no mean and variance are known to go"


def _refuse_hooks(name: str, module: nn.Module) -> None:
    if has_hooks(module):
        raise MomentsError(f"a network whose {called(name, module)} has hooks")
