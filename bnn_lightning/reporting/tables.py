"""Tables on the screen."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bnn_lightning.checkpoints.summary import TrainingSummary


def show_training(
    console: Console,
    rows: Mapping[str, tuple[TrainingSummary, Mapping[str, float], list[str]]],
    score: str = "accuracy",
) -> None:
    """The table at the end of fit: for each checkpoint its training summary, validation metrics and data notes.

    ``score`` is the name of the likelihood's.
    """
    table = _table("checkpoint", "epoch", "val nll", f"val {score}", "train nll", "kl/N", "elbo/N", "sparsity")
    for name, (summary, val, _) in rows.items():
        table.add_row(
            name,
            str(summary.epoch + 1),
            _number(val.get("val/nll")),
            metric_text(score, val.get(f"val/{score}")),
            _number(summary.nll),
            _number(summary.kl_per_n, 3),
            _number(summary.elbo_per_n, 3),
            "-" if summary.sparsity is None else f"{100 * summary.sparsity:.1f} %",
        )
    console.print(table)
    for name, (summary, _, notes) in rows.items():
        _show_caveats(console, f"{name}: ", summary.caveats + notes)


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


def show_evaluation(console: Console, results: Mapping[str, Any]) -> None:
    """The table at the end of validate and test: a row for each metric, with its errors under the first prediction."""
    ways = list(results["predictions"])
    titles = [title_of(way, results["sampling"], results["method"]) for way in ways]
    measured, errors = results["predictions"][ways[0]], results["errors"][ways[0]]
    kind = "examples" if {"rmse", "skill"} & measured.keys() else "images"
    kinds = [of for of in ("images", "draws") if any(error[of] is not None for error in errors.values())]
    table = _table(
        "", titles[0], *(f"{_plus_minus(console)} {kind if of == 'images' else of}" for of in kinds), *titles[1:]
    )
    for name in measured:
        title, show = _metric(name.removesuffix("_scaled"))
        if name.endswith("_scaled"):
            title += _scaled_title(results)
        error = [errors[name][of] for of in kinds]
        others = [results["predictions"][way].get(name) for way in ways[1:]]
        table.add_row(title, *(show(value) for value in (measured[name], *error, *others)))
    console.print(f"{results['data']}, {results['images']:,} {kind}:")
    console.print(table)
    if "per_class" in results:
        _show_classes(console, results)
    if len(results.get("per_target", ())) > 1:
        _show_targets(console, results["per_target"])
    if "sparsity" in results:
        show_sparsity(console, results["sparsity"])
    for name, by_score in results.get("ood", {}).items():
        _show_detection(console, name, by_score)
    if results.get("corruptions"):
        _show_corruptions(console, results["corruptions"])
    training = results["training"]
    if training and training["elbo_per_n"] is not None:
        console.print(
            f"elbo/N {training['elbo_per_n']:.3f}, kl/N {training['kl_per_n']:.3f} on the training {kind} "
            f"(N = {training['num_train']:,}, epoch {training['epoch']}, KL weight {training['kl_weight']:.3g})"
        )
    if results.get("sigma_over_prior") is not None:
        console.print(f"mean of sigma / prior sigma {results['sigma_over_prior']:.3f}")
    for caveat in results["caveats"]:
        _show_caveats(console, "Note: ", [caveat])


def _show_classes(console: Console, results: Mapping[str, Any]) -> None:
    """The table of the classes that have test images, or of those with the lowest accuracies where there are many."""
    tested = [row for row in results["per_class"] if row["images"]]
    rows = tested if len(tested) <= _SHOWN_CLASSES else sorted(tested, key=lambda row: row["accuracy"])[:_SHOWN_CLASSES]
    table = _table("class", "images", "accuracy", "95 % interval", "precision", "F1", "most often mistaken for")
    for row in rows:
        interval = f"{100 * row['accuracy_low']:.1f} - {100 * row['accuracy_high']:.1f} %"
        shares = [_percent(row[key]) for key in ("precision", "f1")]
        # Names of classes are the user's: brackets in them are no markup.
        name, other = (Text(_abridged(text)) for text in (row["name"], row["mistaken_for"] or "-"))
        table.add_row(name, f"{row['images']:,}", _percent(row["accuracy"]), interval, *shares, other)
    which = "Classes" if len(rows) == len(tested) else f"The {len(rows)} of {len(tested)} classes of lowest accuracy"
    console.print(f"{which}:")
    console.print(table)


def _scaled_title(results: Mapping[str, Any]) -> str:
    """By what the metrics that end in _scaled are."""
    if results["temperature"] is not None:
        return f" at temperature {results['temperature']:.2f}"
    scales = results["std_scale"]
    return f" at std x {scales[0]:.2f}" if len(scales) == 1 else " at scaled std"


def _show_targets(console: Console, rows: Sequence[Mapping[str, Any]]) -> None:
    """The table of the targets, where there are several."""
    metrics = [name for name in rows[0] if name != "name"]
    table = _table("target", *(_metric(name)[0] for name in metrics))
    for row in rows:
        table.add_row(Text(_abridged(row["name"])), *(metric_text(name, row[name]) for name in metrics))
    console.print("Targets, each in its own units:")
    console.print(table)


def _show_detection(console: Console, name: str, by_score: Mapping[str, Mapping[str, Mapping[str, float]]]) -> None:
    error = f"{_plus_minus(console)} images"
    table = _table("score", "AUROC", error, "AUPR", error, "FPR95", error)
    for score, row in by_score.items():
        cells = [show(row[metric][part]) for metric, show in _DETECTION for part in ("value", "image_error")]
        table.add_row(_OOD_TITLES.get(score, score.replace("_", " ")), *cells)
    console.print(f"Told from {name}:")
    console.print(table)


def _show_corruptions(console: Console, corruptions: Mapping[str, Mapping[int, Mapping[str, float]]]) -> None:
    clean = corruptions["clean"][0]
    severities = sorted({severity for kind, rows in corruptions.items() if kind != "clean" for severity in rows})
    table = _table("corruption", "", "clean", *(f"severity {severity}" for severity in severities))
    for metric in clean:
        title, show = _metric(metric)
        for kind, rows in corruptions.items():
            if kind != "clean":
                table.add_row(
                    kind, title, show(clean[metric]), *(show(rows[severity][metric]) for severity in severities)
                )
    console.print("Corrupted test images:")
    console.print(table)


def show_sparsity(console: Console, sparsity: Mapping[str, Any]) -> None:
    """The table of kept weights, layer by layer, under that of test."""
    table = _table("layer", "weights", "kept", "sparsity", "median log alpha")
    for layer in sparsity["layers"]:
        table.add_row(
            layer["layer"],
            f"{layer['weights']:,}",
            f"{layer['kept']:,}",
            _percent(layer["sparsity"]),
            _number(layer["median_log_alpha"], 2),
        )
    table.add_row("all", f"{sparsity['weights']:,}", f"{sparsity['kept']:,}", _percent(sparsity["sparsity"]), "")
    console.print(f"Kept are the {sparsity['kept_are']}:")
    console.print(table)
    console.print(
        f"compression {sparsity['compression']:.1f}x (weights over kept weights), "
        f"{sparsity['compression_with_biases']:.1f}x with biases"
    )


def show_pruning(console: Console, rows: Sequence[Mapping[str, float]]) -> None:
    """The table of ``bnn prune``: what mean weights are worth without those of lowest |mu| / sigma."""
    table = _table("removed", "weights kept", "|mu| / sigma above", "accuracy", "nll")
    for row in rows:
        table.add_row(
            _percent(row["removed"]),
            f"{row['kept']:,}",
            _number(row["min_signal_to_noise"], 3),
            _percent(row["accuracy"]),
            _number(row["nll"]),
        )
    console.print(table)


def show_export(console: Console, rows: Sequence[Mapping[str, Any]]) -> None:
    """The table of ``bnn export``: what each network is worth and costs."""
    table = _table(
        "network", "parameters", "accuracy", "bytes on disk", "ms, 1 image", f"ms, {rows[0]['batch']} images"
    )
    for row in rows:
        table.add_row(
            row["network"],
            f"{row['parameters']:,}",
            _percent(row["accuracy"]),
            f"{row['bytes']:,}",
            _number(row["ms_1"], 3),
            _number(row["ms_batch"], 3),
        )
    console.print(table)


def _show_caveats(console: Console, start: str, caveats: list[str]) -> None:
    if caveats:
        console.print(f"{start}{', '.join(caveats)}.", style="yellow", markup=False)


def _abridged(name: str) -> str:
    return name if len(name) <= 24 else f"{name[:23]}…"


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right", no_wrap=True)
    return table


def _plus_minus(console: Console) -> str:
    """The sign ±, or two that any console has: a table's columns are as wide as what is shown."""
    try:
        "±".encode(console.encoding)
    except UnicodeEncodeError:
        return "+-"
    return "±"


def _number(value: float | None, digits: int = 4) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _fine(value: float | None) -> str:
    return _number(value, 5)


def _significant(value: float | None) -> str:
    """Four digits, for numbers in the units of the data, of any size."""
    return "-" if value is None else f"{value:.4g}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f} %"


def metric_text(name: str, value: float | None) -> str:
    """The number of a metric as it is shown; a dash where there is none."""
    return _metric(name)[1](value)


def _metric(name: str) -> tuple[str, Callable[[float | None], str]]:
    """What a metric is called on the screen, and what shows its numbers; one of somebody's likelihood by its name."""
    return _METRICS.get(name, (name.replace("_", " "), _number))


_SHOWN_CLASSES = 12  # of more, the table has those with the lowest accuracies
# What a metric is called on the screen, and how its numbers are shown.
_METRICS: dict[str, tuple[str, Callable[[float | None], str]]] = {
    "accuracy": ("accuracy", _percent),
    "balanced_accuracy": ("balanced accuracy", _percent),
    "macro_f1": ("macro F1", _percent),
    "nll": ("nll", _number),
    "brier": ("Brier score", _number),
    "ece": ("ECE", _number),
    "adaptive_ece": ("adaptive ECE", _number),
    "aurc": ("AURC", _fine),
    "rmse": ("RMSE", _significant),
    "mae": ("MAE", _significant),
    "r2": ("R2", _number),
    "crps": ("CRPS", _significant),
    **{f"coverage_{level}": (f"coverage of {level} %", _percent) for level in (50, 80, 90, 95)},
    **{f"width_{level}": (f"width of {level} %", _significant) for level in (50, 80, 90, 95)},
    "calibration_error": ("calibration error", _number),
    "sharpness": ("predictive std (sharpness)", _significant),
    "conformal_coverage_90": ("conformal coverage of 90 %", _percent),
    "conformal_width_90": ("conformal width of 90 %", _significant),
    "risk_at_80": ("risk at 80 % coverage", _percent),
    "risk_at_90": ("risk at 90 % coverage", _percent),
    "risk_at_95": ("risk at 95 % coverage", _percent),
}
_DETECTION: tuple[tuple[str, Callable[[float | None], str]], ...] = (
    ("auroc", _number),
    ("aupr", _number),
    ("fpr95", _percent),
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
