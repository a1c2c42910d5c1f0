"""Pools made by hand or at random, and sums over all configurations of their labels."""

import itertools
import math

import torch


def logits_of(probabilities):
    """Logits whose softmax gives these probabilities, to 1e-15."""
    return torch.tensor(probabilities, dtype=torch.float64).clamp_min(1e-15).log()


def random_pool(samples, images, classes, seed=0, spread=2.0):
    """Logits of samples that agree in part."""
    generator = torch.Generator().manual_seed(seed)
    shared = torch.randn(1, images, classes, generator=generator, dtype=torch.float64)
    own = torch.randn(samples, images, classes, generator=generator, dtype=torch.float64)
    return spread * (shared + own)


def information(logits, images):
    """I(labels of ``images``; sample) in nats, by a loop over all configurations: H(y) - mean_t sum_j H(y_j | t)."""
    probs = logits.softmax(-1)[:, images]
    samples, count, classes = probs.shape
    entropy = 0.0
    for labels in itertools.product(range(classes), repeat=count):
        joint = sum(math.prod(probs[t, j, labels[j]].item() for j in range(count)) for t in range(samples)) / samples
        entropy -= joint * math.log(joint) if joint > 0 else 0.0
    return entropy + (probs * probs.clamp_min(1e-300).log()).sum().item() / samples
