"""Samples of a network's outputs: by weight draws, local draws or mean weights, seeded, with bounded memory."""

import warnings
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
from bnn_lightning.core.layers import BayesianLayer, RandomLayer
from bnn_lightning.core.posteriors import JointPart
from bnn_lightning.core.whole_network import bayesian_layers, draw, evaluating, methods_of, random_tensors, sampling

Draws = Literal["weights", "local", "mean"]
"""How a sample is drawn. ``weights``: one draw of all weights, the same for all images. ``local``: a forward pass as in
training, in which each image may have noise of its own; where tensors are correlated with each other, which a forward
pass from layer to layer cannot draw, local draws are weight draws. ``mean``: the mean weights, without noise."""

CHUNK = 256
_MAX_CACHED_BYTES = 2**28  # of weight draws that are kept from batch to batch; if they need more, none are kept
_SEED_OFFSET = 0x5EED  # seed 0 of the draws must not replay the noise that seed 0 initialised the weights with


@dataclass(frozen=True)
class Sampling:
    """How samples of a network's outputs are drawn.

    Args:
        val_samples: samples in validation.
        test_samples: samples in test and predict.
        draws: how they are drawn in test and predict: weights (the same for all images), local (as in training) or mean
            (no noise); null is weights, or local where the noise is not on weights.
        chunk: images times samples that are computed at once, which bounds memory.
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
    """Networks of one architecture whose samples are pooled, so that the predictive is an equal mixture of theirs.

    It cannot be called; :class:`Sampler` draws its samples.

    Args:
        members: the networks.
    """

    def __init__(self, members: list[nn.Module]):
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, x: Tensor) -> Tensor:
        raise ValueError(
            f"members must be 1 to train or call a network, got {len(self.members)}: train each by itself."
        )


def pooled_samples(samples: int, members: int) -> int:
    """``samples`` rounded up to a multiple of ``members``, so that each member of an ensemble has equally many."""
    return -(-samples // members) * members


class Sampler:
    """Draws samples of a network's outputs: ``Sampler(net, 25)(x)``.

    Images ``(batch, channels, height, width)`` give outputs ``(samples, batch, outputs)``: logits, where labels are
    classes. Weight draws are the same in every batch, so that sample t is one function of the image, whatever batch the
    image is in. There are no gradients. Modes, parameters and batch-norm statistics of the network stay as they are; do
    not change its parameters while the sampler is in use.

    Args:
        net: any network, deterministic or with random layers, or an :class:`Ensemble`. The samples of an ensemble are
            those of its first member, then those of the second, and so on.
        samples: number of samples; for an ensemble rounded up to equally many for each member. With mean weights, where
            all samples would be equal, each network gives one.
        draws: how samples are drawn; None is ``weights`` where the network's noise is on weights, else ``local``.
        seed: of the draws; torch's generators are afterwards as before.
        chunk: the largest number of images times samples that go through the network at once. A batch larger than that
            is not divided; its samples are computed one after another. Beside the outputs, memory grows with
            ``samples`` by at most 256 MiB of weights.

    Raises:
        ValueError: when ``draws`` is ``weights`` although a method's noise is on inputs or outputs, where no weights
            have the same effect; or when an argument is out of range.
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
        # Several local draws in one batch are independent samples only if the examples of a batch are independent.
        independent = all(layer.examples_are_independent for layer in bayesian_layers(net))
        self._several_at_once = self.draws == "weights" or independent
        self._split_nets = [
            _split_at_first_noise(to_plain(net).eval() if self.draws == "weights" else net, net) for net in self.nets
        ]
        self._drawn: dict[tuple[int, int], dict[str, Tensor]] = {}
        self._weight_bytes = max(1, sum(part.mean.nbytes for _, part in random_tensors(self.nets[0])))
        self._dtype = next((value.dtype for value in net.parameters() if value.is_floating_point()), None)

    @property
    def is_joint(self) -> bool:
        """Whether sample t is one network for all images, so that the samples are joint predictions of several."""
        return self.draws != "local"

    @torch.no_grad()
    def __call__(self, x: Tensor, batch_idx: int = 0) -> Tensor:
        """The outputs of all samples, ``(samples, batch, outputs)``.

        Args:
            x: images ``(batch, channels, height, width)``, on the network's device.
            batch_idx: of the batch in its set; local draws of different batches have different seeds.
        """
        x = channels_last(x.to(self._dtype) if x.is_floating_point() else x)
        samples = range(self.per_member)
        at_once = max(1, self.chunk // max(1, len(x))) if self._several_at_once else 1
        if self.draws == "weights":
            at_once = min(at_once, max(1, _MAX_CACHED_BYTES // self._weight_bytes))
        chunks = [samples[start : start + at_once] for start in range(0, len(samples), at_once)]
        outputs = []
        for member, (shared, rest) in enumerate(self._split_nets):
            if self.draws == "weights":
                features = shared(x.clone())  # a network may change its inputs in place
                outputs += [self._weight_draws(member, chunk, features) for chunk in chunks]
                continue
            net, noise = self.nets[member], _seeded(x.device, self.seed, batch_idx, member)
            with evaluating(net), sampling(net, self.draws == "local"), noise:
                outputs += _local_draws(rest, shared(x.clone()), [len(chunk) for chunk in chunks])
        return torch.cat(outputs)

    def _weight_draws(self, member: int, samples: Sequence[int], x: Tensor) -> Tensor:
        """Outputs ``(len(samples), batch, outputs)`` of a member's samples with these numbers."""
        drawn = [self._weights(member, sample, x.device) for sample in samples]
        net = self._split_nets[member][1]
        if len(drawn) > 1:
            stacked = {name: torch.stack([draw[name] for draw in drawn]) for name in drawn[0]}
            try:
                with _refusing_slow_batching():
                    images = x.clone()
                    return vmap(lambda weights: functional_call(net, weights, (images,)))(stacked)
            except (RuntimeError, UserWarning) as error:
                if "vmap" not in str(error) and "batching rule" not in str(error):
                    raise
                # The network's control flow depends on values, or an operation has no batching rule: from now on one
                # draw at a time.
                self._several_at_once = False
        return torch.stack([functional_call(net, draw, (x.clone(),)) for draw in drawn])

    def _weights(self, member: int, sample: int, device: torch.device) -> dict[str, Tensor]:
        """The weights of a member's sample with this number, which seeds the draw."""
        if (member, sample) in self._drawn:
            return self._drawn[member, sample]
        with _seeded(device, self.seed, sample, member):
            drawn = draw(self.nets[member])
        if self._weight_bytes * self.per_member * len(self.nets) <= _MAX_CACHED_BYTES:
            self._drawn[member, sample] = drawn
        return drawn


@contextmanager
def _refusing_slow_batching() -> Iterator[None]:
    """Inside the ``with``, an operation that vmap would loop over, slower than a loop over the network, raises."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "There is a performance drop")
        yield


def _split_at_first_noise(net: nn.Module, bayesian: nn.Module) -> tuple[nn.Module, nn.Module]:
    """The layers before the first random layer, which all samples share, and the rest.

    Only an ``nn.Sequential`` can be split; of other networks the rest is everything.

    Args:
        net: ``bayesian`` itself, or the same network in plain layers.
        bayesian: the network with random layers.
    """
    if type(net).forward is not nn.Sequential.forward:
        return nn.Identity(), net
    layers = children_in_order(net)
    num_shared = 0
    for _, layer in children_in_order(bayesian):
        if any(isinstance(module, RandomLayer) for module in layer.modules()):
            break
        num_shared += 1
    shared, rest = OrderedDict(layers[:num_shared]), OrderedDict(layers[num_shared:])
    return nn.Sequential(shared), nn.Sequential(rest)


def _local_draws(net: nn.Module, x: Tensor, counts: Sequence[int]) -> list[Tensor]:
    """For each count of ``counts`` that many samples, ``(count, batch, outputs)``, by copies of ``x`` in one batch."""
    layers = [layer for _, layer in children_in_order(net)] if type(net) is nn.Sequential else []
    first, rest = (layers[0], layers[1:]) if layers else (net, [])
    outputs = []
    # By count: the copies of x, and the moments of the first layer's outputs, are computed once for each count.
    first_layer_samplers: dict[int, Callable[[], Tensor]] = {}
    for count in counts:
        if count not in first_layer_samplers:
            copies = x if count == 1 else x.repeat(count, *(1,) * (x.dim() - 1))
            first_layer_samplers[count] = (
                first.output_sampler(copies) if isinstance(first, BayesianLayer) else partial(_on_a_copy, first, copies)
            )
        y = first_layer_samplers[count]()
        for layer in rest:
            y = layer(y)
        outputs.append(y.unflatten(0, (count, len(x))))
    return outputs


def _on_a_copy(net: nn.Module, x: Tensor) -> Tensor:
    return net(x.clone())


def draws_of(net: nn.Module, draws: Draws | None = None) -> Draws:
    """How samples of ``net`` are drawn: ``draws`` if given, else the default for its noise; ``mean`` if it has none.

    The default is weight draws where all noise is on weights, else local draws. Weight draws are the same function in
    every batch and cost half as much as local draws; measured with LeNets under LRT on MNIST, they detect
    out-of-distribution images at least as well (docs/measurements.md). Where tensors are parts of a joint posterior,
    local draws are weight draws too.

    Raises:
        ValueError: when ``draws`` is unknown, or ``weights`` although a method's noise is on inputs or outputs.
    """
    if draws is not None and draws not in get_args(Draws):
        raise ValueError(f"draws must be one of {', '.join(get_args(Draws))}, got {draws!r}.")
    methods = methods_of(net)
    if not methods:
        return "mean"
    refusing = sorted(type(method).__name__ for method in methods if method.noise_on != "weights")
    if draws == "weights" and refusing:
        raise ValueError(f"draws must be local or mean for {refusing[0]}, whose noise is not on weights, got weights.")
    if draws == "local" and any(isinstance(posterior, JointPart) for _, posterior in random_tensors(net)):
        return "weights"
    return draws or ("local" if refusing else "weights")


def sample_logits(
    net: nn.Module, x: Tensor, samples: int, draws: Draws | None = None, seed: int = 0, chunk: int = CHUNK
) -> Tensor:
    """Samples of the logits ``(samples, batch, classes)`` of images ``(batch, channels, height, width)``.

    Equal to ``Sampler(net, samples, draws, seed, chunk)(x)``, without gradients, in eval mode; afterwards the network's
    modes and torch's generators are as before. For several batches use :class:`Sampler`, which keeps the weight draws.
    """
    return Sampler(net, samples, draws, seed, chunk)(x)


@contextmanager
def _seeded(device: torch.device, *numbers: int) -> Iterator[None]:
    """Inside the ``with``, torch's generators start from a seed made of ``numbers``; afterwards they are as before."""
    seed = _SEED_OFFSET
    for number in numbers:
        seed = (seed * 1_000_003 + number) % (1 << 63)
    # fork_rng() does not restore the generator of Apple's devices, which manual_seed() sets too.
    mps_state = torch.mps.get_rng_state() if device.type == "mps" else None
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        try:
            yield
        finally:
            if mps_state is not None:
                torch.mps.set_rng_state(mps_state)
