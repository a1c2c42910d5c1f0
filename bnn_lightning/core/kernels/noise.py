"""Standard normal noise: torch's generator, drawn flat; in compiled code on a CPU Philox, whose key torch's draws."""

import math

import torch
from torch import Tensor

from bnn_lightning.core.kernels.compiling import fused, is_compiling
from bnn_lightning.core.kernels.memory import is_channels_last, shaped

_LOW = 0xFFFFFFFF
# The multipliers and key increments of Philox-4x32 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3").
_MULTIPLY = (0xD2511F53, 0xCD9E8D57)
_INCREMENT = (0x9E3779B9, 0xBB67AE85)


def standard_normal_like(x: Tensor) -> Tensor:
    """N(0, 1) noise with the shape and memory format of ``x``."""
    if has_own_noise(x):
        count = -(-x.numel() // 8) * 2  # a counter gives four; the compiler takes a length of 1 for a case of its own
        return shaped(fused(philox_normal)(count, new_key(x))[: x.numel()].to(x.dtype), x)
    if is_channels_last(x):
        # Drawing straight into a channels_last tensor takes torch's slow strided path, several times as long.
        return torch.randn_like(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    return torch.randn_like(x)


def has_own_noise(x: Tensor) -> bool:
    """Whether noise for ``x`` is Philox's: in compiled code on a CPU, where torch's generator is one serial loop.

    On other devices torch's own noise is counter-based and parallel, compiled or not.
    """
    return x.device.type == "cpu" and (torch.compiler.is_compiling() or is_compiling())


def new_key(x: Tensor) -> Tensor:
    """A key for :func:`philox`, the next of torch's generator on the device of ``x``."""
    return torch.randint(0, 1 << 32, (2,), device=x.device)


def philox(counter: Tensor, key: Tensor, rounds: int = 10) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Four random words of 32 bits, as int64 from 0 to 2^32 - 1, for each ``counter``: Philox-4x32.

    A bijection of the counter that the key chooses: no state, so that any part of a sequence can be had by itself.
    Salmon et al. 2011 (doi:10.1145/2063384.2063405).

    Args:
        counter: int64, the low 64 of its 128 bits.
        key: two int64 from 0 to 2^32 - 1.
        rounds: 10, as published.
    """
    high, zero = (counter >> 32) & _LOW, torch.zeros_like(counter)
    return philox_words((counter & _LOW, high, zero, zero), (key[0], key[1]), rounds)


def philox_words(
    words: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[Tensor, Tensor], rounds: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The same for a counter of four words."""
    for _ in range(rounds):
        # Products are up to 2^64: they wrap around in int64, and the mask gives their high half as it is unsigned.
        first, second = words[0] * _MULTIPLY[0], words[2] * _MULTIPLY[1]
        words = (
            ((second >> 32) & _LOW) ^ words[1] ^ key[0],
            second & _LOW,
            ((first >> 32) & _LOW) ^ words[3] ^ key[1],
            first & _LOW,
        )
        key = ((key[0] + _INCREMENT[0]) & _LOW, (key[1] + _INCREMENT[1]) & _LOW)
    return words


def philox_quarters(count: int, key: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Four times ``count`` numbers from N(0, 1) as float32, a function of the key: by the transform of Box and Muller.

    Their largest magnitude is 6.8, which the 32 bits of a uniform number allow.
    """
    words = philox(torch.arange(count, device=key.device), key)
    return *_box_muller(words[0], words[1]), *_box_muller(words[2], words[3])


def philox_normal(count: int, key: Tensor) -> Tensor:
    """The numbers of :func:`philox_quarters`, one quarter after another."""
    return torch.cat(philox_quarters(count, key))


def _box_muller(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    radius = (first.float() + 0.5).mul(2.0**-32).log().mul(-2).sqrt()  # never log(0)
    angle = second.float() * (2 * math.pi * 2.0**-32)
    return radius * angle.cos(), radius * angle.sin()
