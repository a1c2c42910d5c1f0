"""Fingerprints of examples, by which a test set that has training examples is recognised."""

from hashlib import blake2b

from torch import Tensor

_DIGITS = 16


def fingerprints(inputs: Tensor) -> list[str]:
    """16 hexadecimal digits for each example, those of BLAKE2b of its bytes.

    Args:
        inputs: ``(examples, ...)``, as the network gets them but for what is done to batches; rows are standardised by
            the training rows, whose mean and standard deviation a checkpoint keeps.
    """
    return [blake2b(example.tobytes(), digest_size=_DIGITS // 2).hexdigest() for example in inputs.numpy()]


def joined(of_examples: list[str]) -> str:
    """Fingerprints in one text, sorted, so that their order says nothing."""
    return "".join(sorted(of_examples))


def shared(of_examples: list[str], known: str) -> int:
    """How many examples are among those of a text from :func:`joined`."""
    among = {known[start : start + _DIGITS] for start in range(0, len(known), _DIGITS)}
    return sum(each in among for each in of_examples)
