"""The report of a test: one page that explains what ran and what it is worth, and needs no other file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from shlex import quote
from typing import Any

from torch import Tensor

import bnn_lightning
from bnn_lightning.checkpoints.record import Record
from bnn_lightning.data import ImageData
from bnn_lightning.evaluation.collect import SetOutputs
from bnn_lightning.files import as_word
from bnn_lightning.likelihoods.categorical.classes import names_of_classes
from bnn_lightning.reporting.caveats import explained
from bnn_lightning.reporting.cells import (
    class_cells,
    corruption_cells,
    detection_cells,
    evaluation_cells,
    kind_of,
    metric_text,
    number,
    percent,
    shortened,
    sparsity_cells,
    target_cells,
    title_of,
)
from bnn_lightning.reporting.pages import SMALL, picture, picture_of, write_page
from bnn_lightning.training.module import BayesianModule

_PICTURES = 12  # of the test images, and of each set of images from elsewhere


def write_report(
    path: Path,
    results: Mapping[str, Any],
    model: BayesianModule,
    data: Any,
    record: Record,
    figures: Mapping[str, Path],
    remark: str | None = None,
) -> None:
    """Writes the report of the last test of ``model``.

    Args:
        path: the HTML file.
        results: see results.schema.json.
        model: which was tested.
        data: the data module that it was tested on.
        record: of the checkpoint.
        figures: PNG files by what they show, such as ``reliability``.
        remark: a paragraph that stands before everything else.

    Raises:
        UnwritableError: when the file cannot be written.
    """
    method = "" if results["method"] == "deterministic" else f", {results['method']}"
    others = {name: detection_cells(name, by_score) for name, by_score in results.get("ood", {}).items()}
    is_of_images = isinstance(data, ImageData) and "per_class" in results
    class_names = (record.data or {}).get("class_names", [])
    write_page(
        path,
        "report",
        title=f"{results['network']}{method} on {getattr(data, 'title', results['data'])}",
        summary=_summary(results),
        remark=remark,
        facts=_facts(results, record, model),
        caveats=[explained(caveat, results["inference"]) for caveat in results["caveats"]],
        results=evaluation_cells(results),
        figures={name: picture_of(file) for name, file in figures.items()},
        uncertain=_most_uncertain(model, data, class_names) if is_of_images else [],
        ood=others,
        mistaken=_taken_for_known(model, data, class_names) if is_of_images else {},
        best_scores={name: _best_score(by_score) for name, by_score in results.get("ood", {}).items()},
        classes=class_cells(results) if "per_class" in results else None,
        targets=target_cells(results["per_target"]) if len(results.get("per_target", ())) > 1 else None,
        sparsity=sparsity_cells(results["sparsity"]) if "sparsity" in results else None,
        corruptions=corruption_cells(results["corruptions"]) if results.get("corruptions") else None,
        steps=_next_steps(results, record, data),
        version=bnn_lightning.__version__,
        kind=kind_of(results),
    )


def _summary(results: Mapping[str, Any]) -> str:
    """What came out, in a few sentences."""
    measured, kind = results["predictions"]["samples"], kind_of(results)
    if "accuracy" not in measured:
        text = f"Tested on {results['images']:,} {kind}."
        if "rmse" in measured:
            text += f" Its predictions are off by {metric_text('rmse', measured['rmse'])} (RMSE)"
            if measured.get("coverage_90") is not None:
                text += f"; its 90 % intervals hold {percent(measured['coverage_90'])} of the true values"
            text += "."
        return text
    text = f"{percent(measured['accuracy'])} of {results['images']:,} test images are predicted right."
    if measured.get("risk_at_90") is not None:
        risk = percent(measured["risk_at_90"])
        text += f" Without the 10 % that it is least sure of, {risk} of the others are wrong."
    if results.get("temperature") is not None and measured.get("ece_scaled") is not None:
        text += f" Its confidence is off by {percent(measured['ece'])} on average (ECE), and by "
        text += (
            f"{percent(measured['ece_scaled'])} at temperature {results['temperature']:.2f}, which the hold-out chose."
        )
    return text


def _facts(results: Mapping[str, Any], record: Record, model: BayesianModule) -> list[tuple[str, str]]:
    """What ran, by name."""
    sampling, training = results["sampling"], results["training"]
    config = record.config or {"trainer": {}, "data": {}}
    parameters = sum(parameter.numel() for parameter in model.network.parameters())
    facts = [
        ("network", f"{results['network']}, {parameters:,} parameters"),
        ("method", results["method"]),
        ("inference", results["inference"]),
        ("likelihood", results["likelihood"]),
        ("predictions", title_of("samples", sampling, results["method"])),
        ("tested on", f"{results['data']}, {results['images']:,} {kind_of(results)}"),
    ]
    trained_on = (record.data or {}).get("name")
    if training:
        planned = config["trainer"].get("max_epochs")
        facts.append(("trained on", f"{trained_on or 'your data'}, N = {training['num_train']:,}"))
        facts.append(("epoch", f"{training['epoch']}" + (f" of {planned}" if planned else "")))
        batch = (config["data"].get("init_args") or {}).get("batch_size")
        facts += [("batch size", f"{batch:,}")] if isinstance(batch, int) else []
        if training["elbo_per_n"] is not None:
            facts.append(("elbo/N", f"{number(training['elbo_per_n'], 3)} nats"))
            facts.append(("kl/N", f"{number(training['kl_per_n'], 3)} nats, KL weight {training['kl_weight']:.3g}"))
            if record.training is not None:
                facts.append(("nll of guessing", f"{number(record.training.uninformed_nll, 3)} nats"))
    if results.get("sigma_over_prior") is not None:
        facts.append(("mean of sigma / prior sigma", number(results["sigma_over_prior"], 3)))
    facts.append(("checkpoint", results["checkpoint"]))
    versions = [f"{name} {version}" for name, version in record.versions.items() if name in ("bnn_lightning", "torch")]
    return facts + ([("trained with", ", ".join(versions))] if versions else [])


def _most_uncertain(model: BayesianModule, data: ImageData, class_names: Sequence[str]) -> list[dict[str, Any]]:
    """The test images of highest entropy."""
    name = next(iter(data.test_sets))
    tested = model.tested[name]
    order = tested.summary["entropy"].argsort(descending=True, stable=True)[:_PICTURES]
    return [_shown(tested, data.test_sets[name].pixels, int(index), class_names) for index in order]


def _taken_for_known(model: BayesianModule, data: ImageData, class_names: Sequence[str]) -> dict[str, list[dict]]:
    """Of each set of images from elsewhere those of lowest entropy: they would pass for test images."""
    shown = {}
    for name in data.test_sets:
        if name.startswith("ood/"):
            tested = model.tested[name]
            order = tested.summary["entropy"].argsort(stable=True)[:_PICTURES]
            pixels = data.test_sets[name].pixels
            shown[name.removeprefix("ood/")] = [
                _shown(tested, pixels, int(index), class_names, has_label=False) for index in order
            ]
    return shown


def _shown(
    tested: SetOutputs, pixels: Tensor, index: int, class_names: Sequence[str], has_label: bool = True
) -> dict[str, Any]:
    """An image, with what was predicted of it."""
    log_probs, entropy = tested.summary["log_probs"][index], tested.summary["entropy"][index].item()
    names = names_of_classes(class_names, len(log_probs))
    predicted, label = int(log_probs.argmax()), int(tested.labels[index]) if has_label else -1
    epistemic = tested.summary["mutual_information"][index].clamp(0).item()
    return {
        "picture": picture(pixels[index]),
        "small": pixels.shape[-1] < SMALL,
        "predicted": shortened(names[predicted]),
        "confidence": f"{log_probs.max().exp().item():.0%}",
        "label": shortened(names[label]) if label >= 0 else None,
        "is_wrong": label not in (predicted, -1),
        "entropy": f"{entropy:.2f}",
        "epistemic": f"{epistemic:.2f}",
        "share": round(100 * min(1.0, epistemic / max(entropy, 1e-12))),
    }


def _best_score(by_score: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """The AUROC of predictive entropy, as a share in words; of the first score where there is no entropy."""
    row = by_score.get("entropy") or next(iter(by_score.values()))
    return f"{row['auroc']['value']:.0%}"


def _next_steps(results: Mapping[str, Any], record: Record, data: Any) -> list[tuple[str, str]]:
    """What to do next, each with its command."""
    checkpoint = f"--ckpt_path {quote(results['checkpoint'])}"
    steps = []
    last = record.path.with_name("last.ckpt")
    epochs = ((record.config or {}).get("trainer") or {}).get("max_epochs")
    if record.can_go_on and last.is_file() and epochs:
        train_on = f"bnn fit --ckpt_path {as_word(last)} --trainer.max_epochs {2 * epochs}"
        steps.append(("Train it longer, from where it stopped:", train_on))
    if isinstance(data, ImageData):
        own = f"bnn predict {checkpoint} --data ImageFolder --data.root FOLDER"
        steps.append(("Predict your own pictures, with their uncertainty, to a table:", own))
        if not results.get("ood"):
            other = f"bnn test {checkpoint} --data.ood '[RenderedLetters]' --report"
            steps.append(("See whether it notices images that are none of its classes:", other))
    else:
        steps.append(("Predict each test example, to a table:", f"bnn predict {checkpoint}"))
    if "accuracy" in results["predictions"]["samples"] and results.get("temperature") is not None:
        abstain = f"bnn predict {checkpoint} --target_risk 0.05"
        steps.append(("Accept only as many predictions as keep the error rate below 5 %:", abstain))
    steps.append(("Try it in a browser (pip install 'bnn_lightning[serve]'):", f"bnn serve {checkpoint}"))
    return steps
