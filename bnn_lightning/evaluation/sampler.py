"""Samples of a network's outputs: by weight draws, local draws, mean weights or moments; seeded, in bounded memory."""

import copy
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cached_property, partial
from typing import Self

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from bnn_lightning.core.conversion import children_in_order, to_plain
from bnn_lightning.core.input_format import in_format_for
from bnn_lightning.core.kernels.compiling import compiling
from bnn_lightning.core.kernels.elementwise import at_least_float32
from bnn_lightning.core.kernels.memory import channels_last
from bnn_lightning.core.layers import BayesianLayer, RandomLayer, has_hooks
from bnn_lightning.core.moments import MomentNetwork, MomentsError
from bnn_lightning.core.whole_network import bayesian_layers, draw, evaluating, random_tensors, sampling
from bnn_lightning.evaluation.draws import CHUNK, Draws, Ensemble, draws_of, samples_of
from bnn_lightning.evaluation.logit_normals import correlated_samples, has_correlated_samples, samples_with
from bnn_lightning.randomness import combined_seed, seeded
from bnn_lightning.wording import first_line

_MAX_BYTES_AT_ONCE = 2**28  # of weight draws that go through the network together
KEPT_BYTES = 2**28
"""Of weight draws that are kept from batch to batch; if they need more, none are kept."""
_SEED_OFFSET = 0x5EED  # seed 0 of the draws must not replay the noise that seed 0 initialised the weights with


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
            all samples would be equal, each network gives one; with moments, where they cost no pass, an ensemble
            gives 128.
        draws: how samples are drawn; None is ``weights`` where the network's noise is on weights, else ``local``.
        seed: of the draws; torch's generators are afterwards as before.
        chunk: the largest number of images times samples that go through the network at once. A batch larger than that
            is not divided; its samples are computed one after another. Beside the outputs, memory grows with
            ``samples`` by at most ``kept_bytes`` or 256 MiB of weights, whichever is more.
        kept_bytes: of weight draws that are kept; where all of them take more, they are drawn again for each batch.

    Raises:
        ValueError: when ``draws`` is ``weights`` although a method's noise is on inputs or outputs, where no weights
            have the same effect; or ``moments`` although mean and variance cannot be propagated; or when an argument is
            out of range.
    """

    def __init__(
        self,
        net: nn.Module,
        samples: int,
        draws: Draws | None = None,
        seed: int = 0,
        chunk: int = CHUNK,
        kept_bytes: int = KEPT_BYTES,
    ):
        for name, value in (("samples", samples), ("chunk", chunk)):
            if value < 1:
                raise ValueError(f"{name} must be 1 or more, got {value}.")
        self.nets: list[nn.Module] = list(net.members) if isinstance(net, Ensemble) else [net]
        self.draws = draws_of(net, draws)
        members = len(self.nets)
        self.per_member = samples_of(self.draws, samples, members) // members
        self.seed, self.chunk = seed, chunk
        # Several local draws in one batch are independent samples only if the examples of a batch are independent.
        independent = all(layer.examples_are_independent for layer in bayesian_layers(net))
        self._several_at_once = self.draws == "weights" or independent
        self._has_been_tried = False  # whether layers have examples on their first axis, which the first batch shows
        self._compiles = any(layer.compiles for layer in bayesian_layers(net))
        self._moment_nets = [MomentNetwork(net) for net in self.nets] if self.draws == "moments" else []
        self._is_fast_at_once = False  # whether several weight draws have gone through at once, and not in a slow loop
        self._drawn: dict[int, dict[str, Tensor]] = {}
        self._weight_bytes = max(1, sum(part.mean.nbytes for _, part in random_tensors(self.nets[0])))
        self.keeps_draws = self._weight_bytes * self.per_member * len(self.nets) <= kept_bytes
        self._dtype = next((value.dtype for value in net.parameters() if value.is_floating_point()), None)

    @cached_property
    def _split_nets(self) -> list[tuple[nn.Module, nn.Module]]:
        """Of each network the part before its first noise, and the rest; made once it has its memory format."""
        is_plain = self.draws == "weights"
        return [_split_at_first_noise(to_plain(net).eval() if is_plain else net, net) for net in self.nets]

    @property
    def samples(self) -> int:
        """How many there are, of all members together."""
        return self.per_member * len(self.nets)

    @property
    def is_joint(self) -> bool:
        """Whether sample t is one network for all images, so that the samples are joint predictions of several.

        Moments are those of one image: what two have to do with each other is in none of them.
        """
        return self.draws in ("weights", "mean")

    @torch.no_grad()
    def __call__(self, x: Tensor, batch_idx: int = 0) -> Tensor:
        """The outputs of all samples, ``(samples, batch, outputs)``.

        Args:
            x: images ``(batch, channels, height, width)``, on the network's device.
            batch_idx: of the batch in its set; local draws of different batches have different seeds.
        """
        x = x.to(self._dtype) if x.is_floating_point() else x
        if self._moment_nets:
            x = channels_last(x)
            members = [self._samples_by_moments(net, x.clone()) for net in self._moment_nets]
            return members[0] if len(members) == 1 else torch.cat(members)
        for net in self.nets:
            x = in_format_for(net, x)
        if self.draws == "local" and self._several_at_once and not self._has_been_tried:
            self._several_at_once = all(_examples_come_first(net, x[:1]) for net in self.nets)
            self._has_been_tried = True
        samples = range(self.per_member)
        at_once = max(1, self.chunk // max(1, len(x))) if self._several_at_once else 1
        if self.draws == "weights":
            at_once = min(at_once, max(1, _MAX_BYTES_AT_ONCE // self._weight_bytes))
        chunks = [samples[start : start + at_once] for start in range(0, len(samples), at_once)]
        outputs = []
        for member, (shared, rest) in enumerate(self._split_nets):
            if self.draws == "weights":
                features = shared(x.clone())  # a network may change its inputs in place
                outputs += [self._weight_draws(member, chunk, features) for chunk in chunks]
                continue
            net, noise = self.nets[member], self._seeded(x.device, batch_idx, member)
            with evaluating(net), sampling(net, self.draws == "local"), noise:
                outputs += _local_draws(rest, shared(x.clone()), [len(chunk) for chunk in chunks])
        return torch.cat(outputs)

    def _samples_by_moments(self, net: MomentNetwork, x: Tensor) -> Tensor:
        """Outputs ``(per_member, batch, outputs)`` of a member, from their means and variances, or covariances."""
        try:
            # Half precision rounds small variances away.
            with torch.autocast(x.device.type, enabled=False), compiling(self._compiles):
                inputs = x.to(at_least_float32(x)) if x.is_floating_point() else x
                mean, spread = net.covariance(inputs) if net.has_covariance else net(inputs)
        except (RuntimeError, TypeError, IndexError, AttributeError) as error:
            # A graph that torch.fx has traced may still do what rules do not foresee.
            raise MomentsError(f"a network whose moments cannot be computed ({first_line(error)})") from error
        with torch.autocast(x.device.type, enabled=False):
            if net.has_covariance and has_correlated_samples(self.per_member, mean.shape[-1]):
                return correlated_samples(mean, spread, self.per_member, self.seed)
            variance = spread.diagonal(dim1=-2, dim2=-1) if net.has_covariance else spread
            return samples_with(mean, variance, self.per_member, self.seed)

    def replica(self) -> Self:
        """The same sampler for another thread: it shares parameters and weight draws that are kept.

        Weight draws go through a network in the place of its parameters, which two threads cannot do with one module.
        """
        other = copy.copy(self)
        split = vars(self).get("_split_nets", [])  # once there have been images
        nets = [*self.nets, *(part for parts in split for part in parts)]
        shared = {id(tensor): tensor for net in nets for tensor in (*net.parameters(), *net.buffers())}
        other.nets, split = copy.deepcopy((self.nets, split), shared)
        if split:
            other._split_nets = split
        return other

    @torch.no_grad()
    def drawn(self, member: int) -> dict[str, Tensor]:
        """The weights of a member's samples, ``(per_member, ...)`` by name: its random tensors alone."""
        device = next(self.nets[member].parameters()).device
        return self._weights(member, range(self.per_member), device)

    def _weight_draws(self, member: int, samples: range, x: Tensor) -> Tensor:
        """Outputs ``(len(samples), batch, outputs)`` of a member's samples with these numbers."""
        drawn = self._weights(member, samples, x.device)
        net = self._split_nets[member][1]
        if len(samples) > 1:
            try:
                with nullcontext() if self._is_fast_at_once else _refusing_slow_batching():
                    images = x.clone()
                    outputs = vmap(lambda weights: functional_call(net, weights, (images,)))(drawn)
                self._is_fast_at_once = True
                return outputs
            except (RuntimeError, UserWarning):
                # The network's control flow depends on values, an operation has no batching rule, or cannot be in
                # place: from now on one draw at a time, which also fails where nothing of this is the reason.
                self._several_at_once = False
        each = ({name: values[index] for name, values in drawn.items()} for index in range(len(samples)))
        return torch.stack([functional_call(net, weights, (x.clone(),)) for weights in each])

    def _seeded(self, device: torch.device, number: int, member: int) -> AbstractContextManager[None]:
        """Inside the ``with``, the generators start from the seed of a member's draw, or batch, of this number."""
        return seeded(combined_seed(_SEED_OFFSET, self.seed, number, member), device)

    def _weights(self, member: int, samples: range, device: torch.device) -> dict[str, Tensor]:
        """The weights of a member's samples with these numbers, ``(len(samples), ...)`` by name.

        Each number seeds its draw.
        """
        if member in self._drawn:
            return {name: values[samples.start : samples.stop] for name, values in self._drawn[member].items()}
        draws = []
        for sample in range(self.per_member) if self.keeps_draws else samples:
            with self._seeded(device, sample, member):
                draws.append(draw(self.nets[member]))
        stacked = {name: torch.stack([drawn[name] for drawn in draws]) for name in draws[0]}
        if not self.keeps_draws:
            return stacked
        self._drawn[member] = stacked
        return self._weights(member, samples, device)


@contextmanager
def _refusing_slow_batching() -> Iterator[None]:
    """Inside the ``with``, an operation that vmap would loop over, slower than a loop over the network, raises."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "There is a performance drop")
        yield


def _split_at_first_noise(net: nn.Module, bayesian: nn.Module) -> tuple[nn.Module, nn.Module]:
    """The layers before the first random layer, which all samples share, and the rest.

    Only an ``nn.Sequential`` without hooks can be split; of other networks the rest is everything.

    Args:
        net: ``bayesian`` itself, or the same network in plain layers.
        bayesian: the network with random layers.
    """
    if type(net).forward is not nn.Sequential.forward or has_hooks(net):
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
    in_order = type(net) is nn.Sequential and not has_hooks(net)
    layers = [layer for _, layer in children_in_order(net)] if in_order else []
    first, rest = (layers[0], layers[1:]) if layers else (net, [])
    outputs = []
    # By count: the copies of x, and the moments of the first layer's outputs, are computed once for each count.
    first_layer_samplers: dict[int, Callable[[], Tensor]] = {}
    for count in counts:
        if count not in first_layer_samplers:
            copies = x if count == 1 else x.repeat(count, *(1,) * (x.dim() - 1))
            if isinstance(first, BayesianLayer) and not has_hooks(first):  # hooks are of a call
                first_layer_samplers[count] = first.output_sampler(copies)
            else:
                first_layer_samplers[count] = partial(_on_a_copy, first, copies)
        y = first_layer_samplers[count]()
        for layer in rest:
            y = layer(y)
        outputs.append(y.unflatten(0, (count, len(x))))
    return outputs


def _examples_come_first(net: nn.Module, example: Tensor) -> bool:
    """Whether the first axis of what random layers get grows with the batch.

    It does not where a network has tokens first, as by torch's ``batch_first=False``: there the copies of an example
    would share the noise that a method draws for each row of the first axis.
    """
    rows: list[list[int]] = [[], []]
    with evaluating(net), sampling(net, False), seeded(0, example.device):
        for count, seen in zip((2, 3), rows, strict=True):
            with _noting_rows(net, seen):
                try:
                    net(example.repeat(count, *(1,) * (example.dim() - 1)))
                except Exception:  # of a network that takes no such batches: the pass that is meant says why
                    return False
    return len(rows[0]) == len(rows[1]) and all(3 * two == 2 * three for two, three in zip(*rows, strict=True))


@contextmanager
def _noting_rows(net: nn.Module, rows: list[int]) -> Iterator[None]:
    """Inside the ``with``, each call of a random layer adds the size of its input's first axis to ``rows``."""
    layers = [module for module in net.modules() if isinstance(module, RandomLayer)]
    hooks = [layer.register_forward_pre_hook(lambda _, inputs: rows.append(len(inputs[0]))) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _on_a_copy(net: nn.Module, x: Tensor) -> Tensor:
    return net(x.clone())


def sample_logits(
    net: nn.Module, x: Tensor, samples: int, draws: Draws | None = None, seed: int = 0, chunk: int = CHUNK
) -> Tensor:
    """Samples of the logits ``(samples, batch, classes)`` of images ``(batch, channels, height, width)``.

    Equal to ``Sampler(net, samples, draws, seed, chunk)(x)``, without gradients, in eval mode; afterwards the network's
    modes and torch's generators are as before. For several batches use :class:`Sampler`, which keeps the weight draws.
    """
    return Sampler(net, samples, draws, seed, chunk)(x)
