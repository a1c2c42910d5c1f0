"""T samples of a network's outputs: by weight draws, local draws or mean weights; seeded, in bounded memory."""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from bnn_lightning.core.conversion import children_in_order, to_plain
from bnn_lightning.core.kernels.memory import channels_last
from bnn_lightning.core.layers import BayesianLayer
from bnn_lightning.core.whole_network import draw, methods_of, random_tensors, sampling

Draws = Literal["weights", "local", "mean"]
"""What one sample is: ``weights``, one draw of all weights, a function that is applied to every image alike;
``local``, a training pass, whose noise each image may have for itself; ``mean``, the mean weights, without noise."""

CHUNK = 256
_KEPT = 2**28  # bytes of drawn weights that are kept from batch to batch; beyond it they are drawn again
_SEED_OFFSET = 0x5EED  # seed 0 of the draws must not replay the noise that seed 0 initialised the weights with


@dataclass(frozen=True)
class Sampling:
    """How samples of a network's outputs are drawn.

    Args:
        val_samples: samples in validation.
        test_samples: samples in test and predict.
        draws: how they are drawn in test and predict: weights (for all images at once), local (as in training) or mean
            (no noise); null is weights, or local where noise is not on weights.
        chunk: images times samples that are computed together, which bounds memory.
        seed: of the samples in validation, test and predict.
    """

    val_samples: int = 5
    test_samples: int = 25
    draws: Draws | None = None
    chunk: int = CHUNK
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("val_samples", "test_samples", "chunk"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, got {getattr(self, name)}.")


class Ensemble(nn.Module):
    """Networks of one architecture whose samples are pooled: an equal mixture of their predictives."""

    def __init__(self, members: list[nn.Module]):
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, x: Tensor) -> Tensor:
        raise ValueError(
            f"members must be 1 to train or call a network, got {len(self.members)}: train each by itself."
        )


def pooled_samples(samples: int, members: int) -> int:
    """``samples``, rounded up to equally many for each member of an ensemble."""
    return -(-samples // members) * members


class Sampler:
    """Samples of a network's outputs, ``(samples, batch, outputs)`` for images ``(batch, channels, height, width)``.

    ``Sampler(net, 25)(x)``; outputs are logits where labels are classes. Weight draws are the same for every batch:
    sample t is one function of the image, whatever batch it comes in. No gradients are kept and the network's modes,
    values and batch norm statistics are not touched; its parameters must not change while the sampler is in use.

    Args:
        net: any network, deterministic or with random layers, or an :class:`Ensemble` of such. Its samples are those of
            its first member, then those of the second, and so on.
        samples: T, for an ensemble rounded up to equally many for each member; one for each is enough, and used, where
            all of them would be the same.
        draws: what a sample is; null is ``weights`` where the network's noise is that of weights, else ``local``.
        seed: of the draws; torch's generators are left as they were.
        chunk: how many images times samples go through the network at once where a batch is smaller than that. Larger
            batches are not divided. Beside the outputs, memory does not grow with ``samples`` beyond 256 MiB of
            weights.

    Raises:
        ValueError: for ``weights`` where the noise is on layers' inputs or outputs: no weights would have its effect.
    """

    def __init__(self, net: nn.Module, samples: int, draws: Draws | None = None, seed: int = 0, chunk: int = CHUNK):
        for name, value in (("samples", samples), ("chunk", chunk)):
            if value < 1:
                raise ValueError(f"{name} must be 1 or more, got {value}.")
        self.nets: list[nn.Module] = list(net.members) if isinstance(net, Ensemble) else [net]
        self.draws = draws_of(net, draws)
        members = len(self.nets)
        self.per_member = 1 if self.draws == "mean" else pooled_samples(samples, members) // members
        self.seed, self.chunk = seed, chunk
        # Samples that are folded into a batch are independent where its examples are.
        independent = all(method.examples_are_independent for method in methods_of(net))
        self._together = self.draws == "weights" or independent
        self._parts = [_parts(to_plain(net).eval() if self.draws == "weights" else net, net) for net in self.nets]
        self._drawn: dict[tuple[int, int], dict[str, Tensor]] = {}
        self._weight_bytes = max(1, 4 * sum(posterior.mean.numel() for _, posterior in random_tensors(self.nets[0])))
        self._dtype = next((value.dtype for value in net.parameters() if value.is_floating_point()), None)

    @torch.no_grad()
    def __call__(self, x: Tensor, batch_idx: int = 0) -> Tensor:
        """Outputs of all samples; ``batch_idx`` sets the seed of local draws apart from those of other batches."""
        x = channels_last(x.to(self._dtype))
        numbers = range(self.per_member)
        at_once = max(1, self.chunk // max(1, len(x))) if self._together else 1
        if self.draws == "weights":
            at_once = min(at_once, max(1, _KEPT // self._weight_bytes))
        chunks = [numbers[start : start + at_once] for start in range(0, len(numbers), at_once)]
        outputs = []
        for member, (shared, rest) in enumerate(self._parts):
            if self.draws == "weights":
                before = shared(x)
                outputs += [self._weight_draws(member, chunk, before) for chunk in chunks]
                continue
            net, noise = self.nets[member], _seeded(x.device, self.seed, batch_idx, member)
            with _evaluating(net), sampling(net, self.draws == "local"), noise:
                outputs += _local_draws(rest, shared(x), [len(chunk) for chunk in chunks])
        return torch.cat(outputs)

    def _weight_draws(self, member: int, numbers: Sequence[int], x: Tensor) -> Tensor:
        drawn = [self._weights(member, number, x.device) for number in numbers]
        net = self._parts[member][1]
        if len(drawn) > 1:
            stacked = {name: torch.stack([draw[name] for draw in drawn]) for name in drawn[0]}
            try:
                return vmap(lambda weights: functional_call(net, weights, (x,)))(stacked)
            except RuntimeError as error:
                if "vmap" not in str(error):
                    raise
                self._together = False  # the network looks at its values: one draw at a time, from here on
        return torch.stack([functional_call(net, draw, (x,)) for draw in drawn])

    def _weights(self, member: int, number: int, device: torch.device) -> dict[str, Tensor]:
        if (member, number) in self._drawn:
            return self._drawn[member, number]
        with _seeded(device, self.seed, number, member):
            drawn = draw(self.nets[member])
        if self._weight_bytes * self.per_member * len(self.nets) <= _KEPT:
            self._drawn[member, number] = drawn
        return drawn


def _parts(net: nn.Module, bayesian: nn.Module) -> tuple[nn.Module, nn.Module]:
    """``net`` as what stands before all noise and what follows; a chain can be cut, any other network cannot.

    Args:
        net: ``bayesian`` itself or its plain form.
        bayesian: where the random layers are.
    """
    if type(net).forward is not nn.Sequential.forward:
        return nn.Identity(), net
    layers = children_in_order(net)
    before = 0
    for _, layer in children_in_order(bayesian):
        if any(isinstance(module, BayesianLayer) for module in layer.modules()):
            break
        before += 1
    shared, rest = OrderedDict(layers[:before]), OrderedDict(layers[before:])
    return nn.Sequential(shared), nn.Sequential(rest)


def _local_draws(net: nn.Module, x: Tensor, counts: Sequence[int]) -> list[Tensor]:
    """Outputs ``(count, batch, outputs)`` for each of ``counts``, whose samples are folded into the batch."""
    layers = [layer for _, layer in children_in_order(net)] if type(net) is nn.Sequential else []
    first, rest = (layers[0], layers[1:]) if layers else (net, [])
    outputs = []
    repeated: dict[int, Callable[[], Tensor]] = {}
    for count in counts:
        if count not in repeated:
            folded = x if count == 1 else x.repeat(count, *(1,) * (x.dim() - 1))
            repeated[count] = (
                first.output_sampler(folded) if isinstance(first, BayesianLayer) else partial(first, folded)
            )
        y = repeated[count]()
        for layer in rest:
            y = layer(y)
        outputs.append(y.view(count, len(x), -1))
    return outputs


def draws_of(net: nn.Module, draws: Draws | None = None) -> Draws:
    """What a sample of ``net`` is: ``draws``, or by default what suits its noise; ``mean`` where it has none.

    The default is weight draws: one function of the image, the same in every batch, at half the cost of local draws.
    Measured with LeNets under LRT on MNIST, they tell images from elsewhere at least as well (docs/measurements.md).
    """
    if draws is not None and draws not in get_args(Draws):
        raise ValueError(f"draws must be one of {', '.join(get_args(Draws))}, got {draws!r}.")
    methods = methods_of(net)
    if not methods:
        return "mean"
    refusing = sorted(type(method).__name__ for method in methods if method.noise_on != "weights")
    if draws == "weights" and refusing:
        raise ValueError(f"draws must be local or mean for {refusing[0]}, whose noise is not on weights, got weights.")
    return draws or ("local" if refusing else "weights")


def sample_logits(
    net: nn.Module, x: Tensor, samples: int, draws: Draws | None = None, seed: int = 0, chunk: int = CHUNK
) -> Tensor:
    """Logits ``(samples, batch, classes)`` of images ``(batch, channels, height, width)``, without gradients.

    The samples of :class:`Sampler` with the same arguments, which keeps its weight draws from batch to batch. The
    network is in eval mode meanwhile; afterwards its modes and torch's generators are as they were.
    """
    return Sampler(net, samples, draws, seed, chunk)(x)


@contextmanager
def _evaluating(net: nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for module in net.modules()]
    net.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def _seeded(device: torch.device, *numbers: int) -> Iterator[None]:
    """Starts torch's generators from a seed made of ``numbers``; afterwards they go on as before."""
    seed = _SEED_OFFSET
    for number in numbers:
        seed = (seed * 1_000_003 + number) % (1 << 63)
    # fork_rng() does not know the generator of Apple's devices, which manual_seed() sets too.
    mps_state = torch.mps.get_rng_state() if device.type == "mps" else None
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        try:
            yield
        finally:
            if mps_state is not None:
                torch.mps.set_rng_state(mps_state)
