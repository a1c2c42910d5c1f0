"""Standard normal noise: from torch's generator, or in compiled code on a CPU from Philox with a key drawn by torch."""

import math

import torch
from torch import Tensor

from bnn_lightning.core.kernels.compiling import fused, is_compiling
from bnn_lightning.core.kernels.memory import is_channels_last, unflatten_like

_LOW_32_BITS = 0xFFFFFFFF
# Multipliers and key increments of Philox-4x32 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3").
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_INCREMENTS = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10  # as published


def standard_normal_like(x: Tensor) -> Tensor:
    """Independent N(0, 1) noise with the shape, dtype, device and memory format of ``x``."""
    if uses_philox(x):
        # Each counter gives four numbers. An even count is never 1, a length that the compiler would specialise for.
        count = -(-x.numel() // 8) * 2
        return unflatten_like(fused(philox_normal)(count, draw_key(x))[: x.numel()].to(x.dtype), x)
    if is_channels_last(x):
        # Filling a channels_last tensor takes torch's slow strided path, several times as long as a contiguous one.
        return torch.randn_like(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    return torch.randn_like(x)


def uses_philox(x: Tensor) -> bool:
    """Whether noise for ``x`` comes from Philox: in compiled code on a CPU, where torch's generator is a serial loop.

    On other devices torch's own noise is counter-based and parallel, compiled or not.
    """
    return x.device.type == "cpu" and (torch.compiler.is_compiling() or is_compiling())


def draw_key(x: Tensor) -> Tensor:
    """A key for :func:`philox`: two int64 from 0 to 2^32 - 1, drawn from torch's generator on the device of ``x``."""
    return torch.randint(0, 1 << 32, (2,), device=x.device)


def philox(counter: Tensor, key: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Philox-4x32: four random words of 32 bits, as int64 from 0 to 2^32 - 1, for each element of ``counter``.

    The words are a bijection of the counter, chosen by the key. There is no state, so that any part of the sequence can
    be computed independently of the rest. Salmon et al. 2011 (doi:10.1145/2063384.2063405).

    Args:
        counter: int64, any shape: the low 64 of the counter's 128 bits.
        key: ``(2,)``, int64 from 0 to 2^32 - 1.
    """
    high, zero = (counter >> 32) & _LOW_32_BITS, torch.zeros_like(counter)
    return philox_words((counter & _LOW_32_BITS, high, zero, zero), (key[0], key[1]))


def philox_words(
    words: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """:func:`philox` for a counter given as its four words of 32 bits, the lowest first."""
    for _ in range(_ROUNDS):
        # Products are up to 2^64 and wrap around in int64; after the shift the mask removes the copies of the sign bit.
        first, second = words[0] * _MULTIPLIERS[0], words[2] * _MULTIPLIERS[1]
        words = (
            ((second >> 32) & _LOW_32_BITS) ^ words[1] ^ key[0],
            second & _LOW_32_BITS,
            ((first >> 32) & _LOW_32_BITS) ^ words[3] ^ key[1],
            first & _LOW_32_BITS,
        )
        key = ((key[0] + _KEY_INCREMENTS[0]) & _LOW_32_BITS, (key[1] + _KEY_INCREMENTS[1]) & _LOW_32_BITS)
    return words


def philox_quarters(count: int, key: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Four tensors ``(count,)`` of float32 N(0, 1) noise, a function of ``key``, by the Box-Muller transform.

    The largest magnitude is 6.8, because the uniform numbers have 32 bits.
    """
    words = philox(torch.arange(count, device=key.device), key)
    return *_box_muller(words[0], words[1]), *_box_muller(words[2], words[3])


def philox_normal(count: int, key: Tensor) -> Tensor:
    """The four tensors of :func:`philox_quarters`, concatenated: ``(4 * count,)``."""
    return torch.cat(philox_quarters(count, key))


def _box_muller(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    radius = (first.float() + 0.5).mul(2.0**-32).log().mul(-2).sqrt()  # + 0.5: never log(0)
    angle = second.float() * (2 * math.pi * 2.0**-32)
    return radius * angle.cos(), radius * angle.sin()
