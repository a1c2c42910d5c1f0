"""RandomLayer, a layer whose tensors are random; BayesianLayer, that of linear layers and convolutions."""

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from bnn_lightning.core.kernels.compiling import compiling
from bnn_lightning.core.kernels.local_noise import with_noise
from bnn_lightning.core.methods.base import Method
from bnn_lightning.core.ops import op_of
from bnn_lightning.core.posteriors import Posterior


class RandomLayer(nn.Module, ABC):
    """A layer whose tensors are random under a method.

    Each posterior has the name of the tensor that it replaces, so that parameters are named ``weight.mu``,
    ``weight.rho``, ``bias.mu`` and so on. A tensor that is not trained (``requires_grad`` false) gives a posterior that
    is not. Hooks of the plain layer go over.

    ``sampling`` says whether a forward pass draws noise (True, the default) or uses the mean weights (False). It is
    independent of ``train()`` and ``eval()``, which set the mode of batch norm and dropout. To set it for a whole
    network use :func:`~bnn_lightning.sampling`. ``compiles`` says whether noise is computed by
    compiled code.
    """

    def __init__(self, layer: nn.Module, method: Method, names: Iterable[str]):
        super().__init__()
        self.method = method
        self.names = tuple(names)
        """Of the tensors that are replaced, as in the plain layer; in a part of it with a dot."""
        self.sampling = True
        self.compiles = False
        self.train(layer.training)
        self.kind = type(layer).__name__
        self._settings = layer.extra_repr()
        for name, value in vars(layer).items():  # networks read the sizes of their layers, such as in_features
            if name[0] != "_" and not hasattr(self, name):
                self.__dict__[name] = value
        copy_hooks(hooks_of(layer), self)

    @abstractmethod
    def posterior_of(self, name: str, value: Tensor) -> Posterior:
        """The posterior that replaces the tensor of that name, which has that value."""

    @abstractmethod
    def plain(self, values: Mapping[str, Tensor]) -> nn.Module:
        """The plain layer with these values as its parameters."""

    @property
    def examples_are_independent(self) -> bool:
        """Whether each example of a batch has noise of its own, see :class:`~bnn_lightning.Method`."""
        return self.method.examples_are_independent

    def start_from(self, layer: nn.Module) -> None:
        """Forms all posteriors anew from the tensors of ``layer``, a plain layer like the one that was replaced."""
        for name in self.names:
            owner, value = name.rpartition(".")[0], _tensor(layer, name)
            posterior = None if value is None else self.posterior_of(name, value).requires_grad_(value.requires_grad)
            setattr(self.get_submodule(owner), name.rpartition(".")[2], posterior)

    def tensors(self) -> dict[str, Posterior]:
        """The posteriors by the names of the tensors that they replace."""
        found = {name: _tensor(self, name) for name in self.names}
        return {name: posterior for name, posterior in found.items() if posterior is not None}

    def extra_repr(self) -> str:
        return f"{self.kind}({self._settings}), {self.method}"


class BayesianLayer(RandomLayer):
    """A plain layer whose weight and bias are random under a method: ``BayesianLayer(nn.Conv2d(3, 16, 5), LRT())``.

    ``weight`` and ``bias`` are posteriors. Inputs and outputs have the shapes of the plain layer.

    Args:
        layer: the plain layer, of a kind registered by :func:`~bnn_lightning.layer_kind`, such as Linear or a
            convolution. The method forms the posteriors from its values.
        method: how weight and bias are random.
        channels: for a linear layer behind a Flatten, the number of channels before the flattening; None treats each
            input feature as a channel.

    Raises:
        TypeError: when ``layer`` is of no registered kind.
        ValueError: when ``channels`` does not divide the input features.
    """

    weight: Posterior
    bias: Posterior | None

    def __init__(self, layer: Any, method: Method, channels: int | None = None):
        op = op_of(layer, channels)
        super().__init__(layer, method, ("weight", "bias"))
        self.op: Any = op
        self.start_from(layer)

    def posterior_of(self, name: str, value: Tensor) -> Posterior:
        return self.method.weight(value, self.op) if name == "weight" else self.method.bias(value)

    def plain(self, values: Mapping[str, Tensor]) -> nn.Module:
        return self.op.layer(values["weight"], values.get("bias"))

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """The layer's output; transposed convolutions can be told its ``output_size``, as torch's can."""
        op = self.op if output_size is None else self.op.for_output_size(x, output_size, self.weight.mean.shape[2:])
        if self.sampling:
            with compiling(self.compiles):
                return self.method.forward(op, x, self.weight, self.bias)
        return op(x, self.weight.mean, None if self.bias is None else self.bias.mean)

    def output_sampler(self, x: Tensor) -> Callable[[], Tensor]:
        """Returns a function; each call draws one output sample for ``x``.

        Where the method gives the moments of the outputs, they are computed once for all calls.
        """
        with compiling(self.compiles):
            moments = self.method.moments(self.op, x, self.weight, self.bias) if self.sampling else None

        def sample() -> Tensor:
            if moments is None:
                return self(x)
            with compiling(self.compiles):
                return with_noise(*moments)

        return sample


def _tensor(layer: nn.Module, name: str) -> Any:
    owner, _, own_name = name.rpartition(".")
    return getattr(layer.get_submodule(owner), own_name)


def has_hooks(module: nn.Module) -> bool:
    """Whether a call of the module does more than its ``forward``."""
    return bool(module._forward_hooks or module._forward_pre_hooks)


# What torch keeps of a module's hooks, by the numbers of their handles.
_HOOKS = (
    *("_forward_hooks", "_forward_hooks_with_kwargs", "_forward_hooks_always_called"),
    *("_forward_pre_hooks", "_forward_pre_hooks_with_kwargs", "_backward_hooks", "_backward_pre_hooks"),
)


def hooks_of(module: nn.Module, without: tuple[type, ...] = ()) -> dict[str, Any]:
    """The hooks of a module by the attributes that hold them, ``without`` those that are objects of these classes."""
    numbered = {name: getattr(module, name).items() for name in _HOOKS}
    hooks = {
        name: {key: hook for key, hook in held if not isinstance(hook, without)} for name, held in numbered.items()
    }
    return hooks | {"_is_full_backward_hook": module._is_full_backward_hook}


def copy_hooks(hooks: Mapping[str, Any], target: nn.Module) -> None:
    """Gives ``target`` the hooks that :func:`hooks_of` has found."""
    for name, held in hooks.items():
        setattr(target, name, OrderedDict(held) if name in _HOOKS else held)


def without_hooks(module: nn.Module, but: tuple[type, ...] = ()) -> nn.Module:
    """A module that holds what ``module`` does, but of its hooks only those that are objects of the classes ``but``."""
    other = module.__new__(type(module))
    vars(other).update(vars(module))
    for name in _HOOKS:
        held = getattr(module, name).items()
        setattr(other, name, OrderedDict((key, hook) for key, hook in held if isinstance(hook, but)))
    return other
