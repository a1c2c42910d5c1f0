"""The probe before training: a few images of the first batch through the network, and a sentence about what fails."""

import re
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from bnn_lightning.core.conversion import to_plain
from bnn_lightning.core.input_format import in_format_for
from bnn_lightning.core.posteriors.base import RandomWeightError
from bnn_lightning.core.whole_network import bayesian_layers, sampling
from bnn_lightning.likelihoods import Likelihood
from bnn_lightning.randomness import random_states, set_random_states
from bnn_lightning.training.batches import images_and_labels, transferred
from bnn_lightning.wording import one_line

_IMAGES = 8  # of the batch that go through the network: enough for batch norm, and quick for large networks
_LARGE = 20.0  # pixels of images that are divided by their standard deviation are far below, those of 0 to 255 above
_OURS = Path(__file__).parent.parent
_LIBRARIES = (Path(torch.__file__).parent.parent, Path(traceback.__file__).parent, _OURS)


@dataclass(frozen=True)
class FirstBatch:
    """What training begins with.

    Args:
        batch: the first of the training loader.
        smallest: number of examples in the smallest training batch.
        labels: of all training examples, where the data set has them at hand; None elsewhere.
    """

    batch: Any
    smallest: int
    labels: Tensor | None


def first_batch(data: LightningDataModule, is_set_up: bool) -> FirstBatch | None:
    """The first training batch of ``data``; random states stay as they are.

    Args:
        data: the data module.
        is_set_up: whether its ``setup("fit")`` has run. Otherwise it runs here, and once more in training.

    Returns:
        None where the data module needs a Trainer, which there is none yet.

    Raises:
        ValueError: when there is no batch at all, or the data module raises something.
    """
    states = random_states(torch.device("cpu"))
    try:
        if not is_set_up:
            data.prepare_data()
            data.setup("fit")
        loader: Any = data.train_dataloader()
        batch = next(iter(loader), None)
        batch = batch if batch is None else transferred(batch, data, torch.device("cpu"))
    except Exception as error:  # somebody else's code can raise anything
        if "NoneType" in str(error):
            return None
        raise ValueError(
            f"data module {type(data).__name__} raises {where_raised(error)}. --debug shows the traceback."
        ) from error
    finally:
        set_random_states(states, torch.device("cpu"))
    if batch is None:
        raise ValueError("train_dataloader must give batches, got none: are there fewer images than batch_size?")
    return FirstBatch(batch, _smallest_batch(loader, batch), _labels_at_hand(loader))


def _smallest_batch(loader: Any, batch: Any) -> int:
    sizes = [len(part) for part in (batch[:1] if isinstance(batch, list | tuple) else ()) if isinstance(part, Tensor)]
    if isinstance(loader, DataLoader) and loader.batch_size and not loader.drop_last:
        with suppress(TypeError):  # of an iterable data set without a length
            sizes.append(len(loader.sampler) % loader.batch_size or loader.batch_size)  # type: ignore[arg-type]
    return min(sizes, default=0)


def _labels_at_hand(loader: Any) -> Tensor | None:
    """The labels of torch's TensorDataset and torchvision's data sets, which have them in memory."""
    dataset = getattr(loader, "dataset", None)
    if isinstance(dataset, TensorDataset):
        return dataset.tensors[1] if len(dataset.tensors) > 1 else None
    targets = getattr(dataset, "targets", None)
    if getattr(dataset, "target_transform", None) is not None or not isinstance(targets, list | Tensor):
        return None
    with suppress(ValueError, TypeError, RuntimeError):
        return torch.as_tensor(targets)
    return None


def probe(network: nn.Module, likelihood: Likelihood, first: FirstBatch, num_classes: int | None) -> None:
    """Runs a few images through ``network`` in train mode; statistics and random states stay as they are.

    Args:
        network: on the device of the batch.
        likelihood: of its outputs.
        first: what training begins with.
        num_classes: of the data; None where they do not say.

    Raises:
        ValueError: when the batch is no pair of images and labels, the images are no finite floats, the network cannot
            take them, or the likelihood cannot take its outputs or the labels.
    """
    x, y = images_and_labels(first.batch)
    _check_images(x)
    with _left_as_it_was(network):
        known = dict(network.named_parameters())
        _check_mean_weights(network, in_format_for(network, x[:_IMAGES]))
        outputs = _step(network, x[:_IMAGES])
        if made := [name for name, _ in network.named_parameters() if name not in known]:
            raise ValueError(
                f"network must make its layers in __init__, but made {made[0]} in forward, which is neither random nor "
                "trained."
            )
        _step(network, x[:_IMAGES])  # what a step keeps for the next, such as a hidden state, must not hold its graph
        likelihood.check(outputs, y, num_classes)
        if first.labels is not None and first.labels.dtype == y.dtype and first.labels.dim() == y.dim():
            likelihood.check(outputs, first.labels, num_classes)
        if first.smallest == 1 and len(x) > 1:
            with torch.no_grad():
                _outputs(network, x[:1])


def _step(network: nn.Module, x: Tensor) -> Tensor:
    """The outputs of a training pass, whose gradients are taken too."""
    outputs = _outputs(network, x)
    try:
        if outputs.requires_grad:
            outputs.sum().backward()
    except RuntimeError as error:
        raise ValueError(f"network must have gradients, but backward raises {where_raised(error)}.") from error
    return outputs.detach()


def _check_mean_weights(network: nn.Module, x: Tensor) -> None:
    """Checks that ``network`` at its mean weights computes what it does in plain layers.

    Raises:
        ValueError: when it does not, because its forward pass tells layers apart by their class.
    """
    if not bayesian_layers(network):
        return
    plain = to_plain(network).eval()
    with torch.no_grad(), sampling(network.eval(), False):
        try:
            states = random_states(torch.device("cpu"))
            expected, again, ours = plain(x.clone()), plain(x.clone()), None
            set_random_states(states, torch.device("cpu"))
            ours = network(x.clone())
        except Exception:  # what fails is told about by the pass in train mode
            return
        finally:
            network.train()
    if not all(isinstance(y, Tensor) for y in (expected, again, ours)) or not torch.equal(expected, again):
        return
    if expected.shape != ours.shape or not torch.allclose(expected, ours, rtol=1e-2, atol=1e-3 * _size_of(expected)):
        raise ValueError(
            "network must compute the same at its mean weights as in plain layers, but does not: does its forward ask "
            "for the class of a layer (isinstance), or call a layer by another way than its attribute?"
        )


def _size_of(x: Tensor) -> float:
    return max(1.0, x.abs().max().item())


def _check_images(x: Tensor) -> None:
    if x.dtype == torch.int64:
        return  # numbers of words, for an Embedding; another network says that it cannot take them
    if not x.is_floating_point():
        advice = "divide by 255" if x.dtype == torch.uint8 else "use x.float()"
        raise ValueError(f"images must be floats, got {_name(x.dtype)}; {advice} in your data set.")
    if x.dtype == torch.float64:
        raise ValueError("images must be float32, got float64; use x.float() in your data set.")
    if not x.isfinite().all():
        bad = int((~x.isfinite()).flatten(1).any(1).sum())
        raise ValueError(f"images must be finite, got nan or inf in {bad} of the {len(x)} images of the first batch.")
    if (largest := x.abs().max().item()) >= _LARGE:
        warnings.warn(
            f"the {'images' if x.dim() == 4 else 'examples'} of the first batch reach {largest:.4g}, where networks "
            f"expect about 1: are they divided by {'255, or by ' if x.dim() == 4 else ''}their standard deviation?",
            stacklevel=2,
        )


def _outputs(network: nn.Module, x: Tensor) -> Tensor:
    """The outputs of a training pass, with a sentence in place of whatever the network raises."""
    try:
        outputs = network(in_format_for(network, x.clone()))
    except Exception as error:  # somebody else's network can raise anything
        if isinstance(error, ValueError) and Path(_frames(error)[-1][0]).is_relative_to(_OURS):
            raise  # a sentence of ours already
        raise ValueError(_why(network, x, error)) from error
    if not isinstance(outputs, Tensor):
        got = _text_of(outputs)
        raise ValueError(f"network must return its outputs as one tensor, got {got}{_how_to_get_outputs(outputs)}.")
    if outputs.dim() == 0 or len(outputs) != len(x):
        raise ValueError(
            f"network must return one row for each image, got outputs {_shape(outputs)} for images {_shape(x)}; "
            "flatten with x.flatten(1), which keeps the images apart."
        )
    return outputs


def _text_of(outputs: Any) -> str:
    inner = (
        outputs.keys()
        if isinstance(outputs, dict)
        else [type(part).__name__ for part in outputs]
        if isinstance(outputs, list | tuple)
        else []
    )
    return type(outputs).__name__ + (f" of {', '.join(map(str, inner))}" if inner else "")


def _how_to_get_outputs(outputs: Any) -> str:
    names = tuple(outputs) if isinstance(outputs, dict) else getattr(outputs, "_fields", ())
    if any("aux" in str(name) for name in names):
        return "; aux_logits=False leaves the auxiliary outputs out"
    return "; wrap it in a module whose forward returns the outputs alone"


def _why(network: nn.Module, x: Tensor, error: Exception) -> str:
    """One sentence about what ``network`` raised: torch's own reason, where, and what may help."""
    names = {module: name for name, module in network.named_modules()}
    if isinstance(error, RandomWeightError):
        name = next((name for name, module in network.named_modules() if module is error.posterior), "")
        owner = name.rpartition(".")[0]
        return (
            f"network must call its layers, but gives the weight of {owner} to a function, which random weights cannot "
            f'serve; leave it out with only: ["*", "!*{owner.rpartition(".")[2]}"].'
        )
    inside = [frame.f_locals.get("self") for frame, _ in traceback.walk_tb(error.__traceback__)]
    layer = next((module for module in reversed(inside) if isinstance(module, nn.Module) and names.get(module)), None)
    at = "" if layer is None else f" at {names[layer]} ({getattr(layer, 'kind', type(layer).__name__)})"
    sentence = f"network must take images {_shape(x)}, but{at} raises {where_raised(error)}"
    cure = _cure(layer, x, one_line(error))
    return f"{sentence}; {cure}." if cure else f"{sentence}. --debug shows the traceback."


def where_raised(error: Exception) -> str:
    """The error with its reason, and the line of somebody else's code that raised it, or called what did."""
    reason = " ".join(str(error.msg if isinstance(error, SyntaxError) else error).split()).rstrip(".")
    own = [(file, line) for file, line in _frames(error) if _is_somebody_elses(file)]
    where = f" ({Path(own[-1][0]).name}, line {own[-1][1]})" if own else ""
    return f"{type(error).__name__}{where}: {reason}" if reason else f"{type(error).__name__}{where}"


def is_raised_in_own_code(error: Exception) -> bool:
    """Whether it is somebody else's code that raised an error, or that called the library which did."""
    files = [file for file, _ in _frames(error)]
    from_us = max((place for place, file in enumerate(files) if Path(file).is_relative_to(_OURS)), default=-1)
    return any(_is_somebody_elses(file) for file in files[from_us + 1 :])


def _frames(error: Exception) -> list[tuple[str, int]]:
    frames = [(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    if isinstance(error, SyntaxError) and error.filename:  # of a file that no line of has run
        frames.append((error.filename, error.lineno or 1))
    return frames


def _is_somebody_elses(file: str) -> bool:
    """Whether it is neither ours, nor a library's, nor made without a file."""
    return not file.startswith("<") and not any(Path(file).is_relative_to(library) for library in _LIBRARIES)


def _cure(layer: Any, x: Tensor, reason: str) -> str:
    channels = getattr(getattr(layer, "op", layer), "in_channels", None)
    weights = layer.parameters() if isinstance(layer, nn.Module) else iter(())
    if others := {weight.dtype for weight in weights} - {x.dtype}:
        return (
            f"its weights are {_name(others.pop())}, the images {_name(x.dtype)}: leave .double(), .half() or dtype out"
        )
    is_convolution = "conv" in getattr(layer, "kind", type(layer).__name__).lower()
    if x.dim() == 4 and x.shape[-1] in (1, 3) and x.shape[1] not in (1, 3):
        return "images must be (batch, channels, height, width): use x.permute(0, 3, 1, 2) in your data set"
    if is_convolution and "channels" in reason and channels in (1, 3):
        return f"--data.channels {channels} converts images that come with {x.shape[1]}"
    if "more than 1 value per channel" in reason:
        return "batch norm needs two images or more in each batch: set batch_size (--data.batch_size) so, or drop_last"
    other_size = f"made for another size than {x.shape[-2]}x{x.shape[-1]}" if x.dim() == 4 else ""
    if shapes := re.search(r"mat1 and mat2 shapes cannot be multiplied \(\d+x(\d+) and ", reason):
        or_size = f", or, where the network is {other_size}, set --data.image_size" if other_size else ""
        return f"{shapes[1]} numbers reach this layer: give it as many inputs{or_size}"
    too_small = ("Kernel size can't", "too small", "doesn't match model", "image h")
    return (
        f"it is {other_size}: set --data.image_size" if other_size and any(map(reason.__contains__, too_small)) else ""
    )


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _shape(x: Tensor) -> str:
    return "x".join(map(str, x.shape))


@contextmanager
def _left_as_it_was(network: nn.Module) -> Iterator[None]:
    """Inside the ``with``, ``network`` is in train mode; afterwards nothing of it has changed."""
    attributes = [(module, dict(vars(module))) for module in network.modules()]
    buffers = [(buffer, buffer.clone()) for buffer in network.buffers()]
    states = random_states(torch.device("cpu"))
    network.train()
    try:
        yield
    finally:
        for module, values in attributes:  # modes, and what a forward pass keeps, such as a hidden state
            vars(module).clear()
            vars(module).update(values)
        network.zero_grad(set_to_none=True)
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)
        set_random_states(states, torch.device("cpu"))
