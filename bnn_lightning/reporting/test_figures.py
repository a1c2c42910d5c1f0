"""Figures of a test and of a pruned network, as PNG files beside the tables."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as tvf

from bnn_lightning.compression.sparsity import masks
from bnn_lightning.data import DataSource, ImageData
from bnn_lightning.likelihoods import Categorical
from bnn_lightning.likelihoods.categorical.calibration import scaled
from bnn_lightning.likelihoods.categorical.classes import confusion_matrix, names_of_classes
from bnn_lightning.likelihoods.regression import Regression
from bnn_lightning.reporting import figures
from bnn_lightning.reporting.regression_figures import draw_regression_tests
from bnn_lightning.training.module import BayesianModule

_ANGLES = range(0, 181, 15)


def draw_tests(
    stem: Path, model: BayesianModule, data: DataSource, class_names: Sequence[str], name: str
) -> list[Path]:
    """Writes the figures of the last test of ``model`` on ``data`` to ``stem_FIGURE.png``.

    ``name`` is what its way of predicting is called, such as "25 weight draws".

    Reliability, risk against coverage, the confusion matrix, most and least certain images, an image that turns; where
    there are images from elsewhere also histograms of their scores, and the parts of uncertainty by class for one of
    them and one test image. Where labels are numbers, see :func:`draw_regression_tests`.
    """
    if isinstance(model.likelihood, Regression):
        return draw_regression_tests(stem, model, data)
    if not isinstance(model.likelihood, Categorical) or not isinstance(data, ImageData):
        return []
    count = model.tested[next(iter(data.test_sets))].summary["log_probs"].shape[-1]
    with figures.names_in_fonts(names_of_classes(class_names, count)) as classes:
        return _draw(stem, model, data, classes, name)


def _draw(stem: Path, model: BayesianModule, data: ImageData, classes: Sequence[str], name: str) -> list[Path]:
    names = list(data.test_sets)
    test, images = model.tested[names[0]], data.test_sets[names[0]]
    log_probs_of_test = test.summary["log_probs"]
    written: list[Path] = []

    def path(name: str) -> Path:
        written.append(stem.with_name(f"{stem.name}_{name}.png"))
        return written[-1]

    log_probs = {"as predicted": log_probs_of_test}
    calibration = model.calibration.get(model.draws)
    if calibration is not None:
        at = f"at temperature {calibration.temperature:.2f}"
        log_probs[at] = scaled(log_probs_of_test, calibration.temperature)
    figures.reliability(path("reliability"), log_probs, test.labels)
    others = {way.replace("_", " "): predictive["log_probs"] for way, predictive in test.alternatives.items()}
    figures.risk_coverage_curve(path("risk_coverage"), {name: log_probs_of_test} | others, test.labels)
    figures.confusion_matrix(path("confusion"), confusion_matrix(log_probs_of_test, test.labels), classes)
    figures.most_and_least_certain(path("extremes"), test.summary | {"labels": test.labels}, images.pixels, classes)
    typical = _typical(test.summary["entropy"])
    turned = torch.stack([tvf.rotate(images.pixels[typical], float(angle)) for angle in _ANGLES])
    figures.rotated_image(path("turning"), list(_ANGLES), turned, _logits(model, data, turned), classes)
    outside = {other.removeprefix("ood/"): model.tested[other].summary for other in names if other.startswith("ood/")}
    if outside:
        figures.score_histograms(path("ood"), (names[0], test.summary), outside)
        captions = [f"{names[0]}\ntest image {typical}, a {figures.short(classes[int(test.labels[typical])])}"]
        pixels = [images.pixels[typical]]
        for other, summary in outside.items():
            chosen = _typical(summary["entropy"])
            captions.append(f"{other}\nimage {chosen}")
            pixels.append(data.test_sets[f"ood/{other}"].pixels[chosen])
        logits = _logits(model, data, torch.stack(pixels)).unbind(1)
        figures.class_uncertainty(path("uncertainty"), list(zip(captions, pixels, logits, strict=True)), classes)
    return written


def draw_kept_weights(path: Path, network: nn.Module, data: Mapping[str, Any]) -> list[Path]:
    """Writes the first linear layer's kept weights over the images that are flattened into it, where there is one.

    ``data`` has the images' ``channels`` and ``image_size``, where they are known.
    """
    for key, mask in masks(network).items():
        op: Any = network.get_submodule(key.removesuffix(".weight")).op
        if mask.dim() != 2:
            continue
        channels = op.in_channels
        if channels == op.in_features:  # no convolution before it: it reads the images, or hidden units
            channels = data.get("channels", 1)
            if op.in_features != channels * data.get("image_size", 0) ** 2:
                return []
        side = math.isqrt(op.in_features // channels)
        if channels * side * side != op.in_features:
            return []
        title = f"{key.removesuffix('.weight')}: weights kept for each input ({channels} x {side} x {side})"
        figures.kept_weights(path, mask, (channels, side, side), title)
        return [path]
    return []


def _typical(entropy: Tensor) -> int:
    """The image of median entropy: neither the best nor the worst case."""
    return int(entropy.argsort(stable=True)[len(entropy) // 2])


def _logits(model: BayesianModule, data: ImageData, pixels: Tensor) -> Tensor:
    """Logits ``(samples, images, classes)`` of uint8 images, prepared as test prepares them."""
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (data.mean, data.std))
    x = (pixels / 255 - mean) / std
    return model.sampler(model.test_samples)(x.to(model.device)).float().cpu()
