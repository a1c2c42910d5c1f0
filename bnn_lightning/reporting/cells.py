"""What stands in the tables of an evaluation, as texts: for the screen, and for a page."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from bnn_lightning.wording import counted


class Cells(NamedTuple):
    """A table as texts.

    Args:
        title: what stands above it.
        columns: their titles; the first column holds names, the others numbers.
        rows: a text for each column.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


def title_of(way: str, sampling: Mapping[str, Any], method: str) -> str:
    """What a way of predicting is called on the screen, such as "25 weight draws"."""
    if way in ("mean_weights", "kept_weights"):
        return way.replace("_", " ")
    if method == "deterministic":
        title = "deterministic"
    elif sampling["draws"] in ("mean", "moments"):
        title = "mean weights" if sampling["draws"] == "mean" else "moments"
    else:
        count = 1 if way == "one_sample" else sampling["samples"]
        title = f"{count} {'weight' if sampling['draws'] == 'weights' else sampling['draws']} draw{'s'[: count != 1]}"
    pooled = sampling["members"] > 1 and way == "samples"
    return f"{title}, {sampling['members']} networks" if pooled else title


def evaluation_cells(results: Mapping[str, Any], plus_minus: str = "±") -> Cells:
    """A row for each metric, with its errors under the first way of predicting.

    Args:
        results: see results.schema.json.
        plus_minus: the sign before what an error comes from.
    """
    ways = list(results["predictions"])
    titles = [title_of(way, results["sampling"], results["method"]) for way in ways]
    measured, errors = results["predictions"][ways[0]], results["errors"][ways[0]]
    kind = kind_of(results)
    kinds = [of for of in ("images", "draws") if any(error[of] is not None for error in errors.values())]
    columns = ["", titles[0], *(f"{plus_minus} {kind if of == 'images' else of}" for of in kinds), *titles[1:]]
    rows = []
    for name in measured:
        show = _metric(name.removesuffix("_scaled"))[1]
        error = [errors[name][of] for of in kinds]
        others = [results["predictions"][way].get(name) for way in ways[1:]]
        rows.append([metric_title(name, results), *(show(value) for value in (measured[name], *error, *others))])
    return Cells(f"{results['data']}, {counted(results['images'], kind.removesuffix('s'))}", columns, rows)


def kind_of(results: Mapping[str, Any]) -> str:
    """What was tested: images, or examples where labels are numbers."""
    return "examples" if {"rmse", "skill"} & results["predictions"]["samples"].keys() else "images"


def class_cells(results: Mapping[str, Any], most: int | None = None) -> Cells:
    """A row for each class that has test images; of more than ``most`` classes, those with the lowest accuracies."""
    tested = [row for row in results["per_class"] if row["images"]]
    few = most is None or len(tested) <= most
    chosen = tested if few else sorted(tested, key=lambda row: row["accuracy"])[:most]
    columns = ["class", "images", "accuracy", "95 % interval", "precision", "F1", "most often mistaken for"]
    rows = []
    for row in chosen:
        interval = f"{100 * row['accuracy_low']:.1f} - {100 * row['accuracy_high']:.1f} %"
        shares = [percent(row[key]) for key in ("precision", "f1")]
        name, other = shortened(row["name"]), shortened(row["mistaken_for"] or "-")
        rows.append([name, f"{row['images']:,}", percent(row["accuracy"]), interval, *shares, other])
    which = "Classes" if few else f"The {len(chosen)} of {len(tested)} classes of lowest accuracy"
    return Cells(which, columns, rows)


def target_cells(per_target: Sequence[Mapping[str, Any]]) -> Cells:
    """A row for each target, where there are several."""
    metrics = [name for name in per_target[0] if name != "name"]
    rows = [[shortened(row["name"]), *(metric_text(name, row[name]) for name in metrics)] for row in per_target]
    return Cells("Targets, each in its own units", ["target", *(_metric(name)[0] for name in metrics)], rows)


def detection_cells(
    name: str, by_score: Mapping[str, Mapping[str, Mapping[str, float]]], plus_minus: str = "±"
) -> Cells:
    """A row for each score by which the test images are told from the set ``name``."""
    error = f"{plus_minus} images"
    rows = [
        [
            _OOD_TITLES.get(score, score.replace("_", " ")),
            *(show(row[metric][part]) for metric, show in _DETECTION for part in ("value", "image_error")),
        ]
        for score, row in by_score.items()
    ]
    return Cells(f"Told from {name}", ["score", "AUROC", error, "AUPR", error, "FPR95", error], rows)


def corruption_cells(corruptions: Mapping[str, Mapping[int, Mapping[str, float]]]) -> Cells:
    """A row for each corruption and metric, with a column for each severity."""
    clean = corruptions["clean"][0]
    severities = sorted({severity for kind, rows in corruptions.items() if kind != "clean" for severity in rows})
    rows = []
    for metric in clean:
        title, show = _metric(metric)
        for kind, by_severity in corruptions.items():
            if kind != "clean":
                values = (by_severity[severity][metric] for severity in severities)
                rows.append([kind, title, show(clean[metric]), *(show(value) for value in values)])
    columns = ["corruption", "", "clean", *(f"severity {severity}" for severity in severities)]
    return Cells("Corrupted test images", columns, rows)


def sparsity_cells(sparsity: Mapping[str, Any]) -> Cells:
    """A row for each layer, and one for all of them."""
    rows = [
        [
            layer["layer"],
            f"{layer['weights']:,}",
            f"{layer['kept']:,}",
            percent(layer["sparsity"]),
            number(layer["median_log_alpha"], 2),
        ]
        for layer in sparsity["layers"]
    ]
    rows.append(["all", f"{sparsity['weights']:,}", f"{sparsity['kept']:,}", percent(sparsity["sparsity"]), ""])
    return Cells(
        f"Kept are the {sparsity['kept_are']}", ["layer", "weights", "kept", "sparsity", "median log alpha"], rows
    )


def metric_title(name: str, results: Mapping[str, Any]) -> str:
    """What a metric is called, such as "ECE at temperature 0.74"."""
    title = _metric(name.removesuffix("_scaled"))[0]
    return title + _scaled_title(results) if name.endswith("_scaled") else title


def _scaled_title(results: Mapping[str, Any]) -> str:
    """By what the metrics that end in _scaled are."""
    if results["temperature"] is not None:
        return f" at temperature {results['temperature']:.2f}"
    scales = results["std_scale"]
    return f" at std x {scales[0]:.2f}" if len(scales) == 1 else " at scaled std"


def shortened(name: str) -> str:
    """A name of the user's, of at most 24 letters."""
    return name if len(name) <= 24 else f"{name[:23]}…"


def number(value: float | None, digits: int = 4) -> str:
    """A number; a dash where there is none, or it is not known (nan), such as an R2 of one example."""
    return "-" if value is None or value != value else f"{value:.{digits}f}"


def percent(value: float | None) -> str:
    """A share as a percentage; a dash where there is none."""
    return "-" if value is None or value != value else f"{100 * value:.2f} %"


def metric_text(name: str, value: float | None) -> str:
    """The number of a metric as it is shown; a dash where there is none."""
    return _metric(name)[1](value)


def _metric(name: str) -> tuple[str, Callable[[float | None], str]]:
    """What a metric is called on the screen, and what shows its numbers; one of somebody's likelihood by its name."""
    return _METRICS.get(name, (name.replace("_", " "), number))


def _fine(value: float | None) -> str:
    return number(value, 5)


def _significant(value: float | None) -> str:
    """Four digits, for numbers in the units of the data, of any size."""
    return "-" if value is None or value != value else f"{value:.4g}"


# What a metric is called on the screen, and how its numbers are shown.
_METRICS: dict[str, tuple[str, Callable[[float | None], str]]] = {
    "accuracy": ("accuracy", percent),
    "balanced_accuracy": ("balanced accuracy", percent),
    "macro_f1": ("macro F1", percent),
    "nll": ("nll", number),
    "brier": ("Brier score", number),
    "ece": ("ECE", number),
    "adaptive_ece": ("adaptive ECE", number),
    "aurc": ("AURC", _fine),
    "rmse": ("RMSE", _significant),
    "mae": ("MAE", _significant),
    "r2": ("R2", number),
    "crps": ("CRPS", _significant),
    **{f"coverage_{level}": (f"coverage of {level} %", percent) for level in (50, 80, 90, 95)},
    **{f"width_{level}": (f"width of {level} %", _significant) for level in (50, 80, 90, 95)},
    "calibration_error": ("calibration error", number),
    "sharpness": ("predictive std (sharpness)", _significant),
    "conformal_coverage_90": ("conformal coverage of 90 %", percent),
    "conformal_width_90": ("conformal width of 90 %", _significant),
    "risk_at_80": ("risk at 80 % coverage", percent),
    "risk_at_90": ("risk at 90 % coverage", percent),
    "risk_at_95": ("risk at 95 % coverage", percent),
}
_DETECTION: tuple[tuple[str, Callable[[float | None], str]], ...] = (
    ("auroc", number),
    ("aupr", number),
    ("fpr95", percent),
)
_OOD_TITLES = {
    "entropy": "predictive entropy",
    "tempered_entropy": "entropy at temperature 3",
    "mutual_information": "mutual information",
    "one_minus_max_p": "1 - max p",
    "epistemic": "epistemic trace",
    "epistemic_std": "epistemic std",
    "predictive_std": "predictive std",
}
