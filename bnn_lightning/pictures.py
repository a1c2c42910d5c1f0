"""Draws what a test saw, as PNG files beside its tables."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as tvf

from bnn_lightning import figures
from bnn_lightning.calibration import scaled
from bnn_lightning.classifier import BayesianClassifier
from bnn_lightning.data import ImageData

_ANGLES = range(0, 181, 15)


def draw_tests(stem: Path, model: BayesianClassifier, data: ImageData, classes: Sequence[str], name: str) -> list[Path]:
    """Writes the figures of the last test of ``model`` on ``data`` to ``stem_FIGURE.png``.

    ``name`` is what its way of predicting is called, such as "25 weight draws".

    Reliability, risk against coverage, most and least certain images, an image that turns; where there are images from
    elsewhere also histograms of their scores, and the parts of uncertainty by class for one of them and one test image.
    """
    names = list(data.test_sets)
    found = model.tested[names[0]]
    images = data.test_sets[names[0]]
    written: list[Path] = []

    def path(name: str) -> Path:
        written.append(stem.with_name(f"{stem.name}_{name}.png"))
        return written[-1]

    log_probs = {"as predicted": found["log_probs"]}
    calibration = model.calibration.get(model.draws)
    if calibration is not None:
        at = f"at temperature {calibration.temperature:.2f}"
        log_probs[at] = scaled(found["log_probs"], calibration.temperature)
    figures.reliability(path("reliability"), log_probs, found["labels"])
    others = {key.removeprefix("log_probs_").replace("_", " "): found[key] for key in found if key[:10] == "log_probs_"}
    figures.risk_coverage_curve(path("risk_coverage"), {name: found["log_probs"]} | others, found["labels"])
    figures.extremes(path("extremes"), found, images.pixels, classes)
    shown = _typical(found["entropy"])
    turned = torch.stack([tvf.rotate(images.pixels[shown], float(angle)) for angle in _ANGLES])
    figures.turning(path("turning"), list(_ANGLES), turned, _logits(model, data, turned), classes)
    outside = {other.removeprefix("ood/"): model.tested[other] for other in names if other.startswith("ood/")}
    if outside:
        figures.score_histograms(path("ood"), (names[0], found), outside)
        captions = [f"{names[0]}\ntest image {shown}, a {classes[int(found['labels'][shown])]}"]
        pixels = [images.pixels[shown]]
        for other, seen in outside.items():
            chosen = _typical(seen["entropy"])
            captions.append(f"{other}\nimage {chosen}")
            pixels.append(data.test_sets[f"ood/{other}"].pixels[chosen])
        logits = _logits(model, data, torch.stack(pixels)).unbind(1)
        figures.by_class(path("uncertainty"), list(zip(captions, pixels, logits, strict=True)), classes)
    return written


def _typical(entropy: Tensor) -> int:
    """The image of median entropy: neither the best nor the worst case."""
    return int(entropy.argsort(stable=True)[len(entropy) // 2])


def _logits(model: BayesianClassifier, data: ImageData, pixels: Tensor) -> Tensor:
    """Logits ``(samples, images, classes)`` of uint8 images, prepared as test prepares them."""
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (data.mean, data.std))
    x = (pixels / 255 - mean) / std
    return model.sampler(model.test_samples)(x.to(model.device)).float().cpu()
