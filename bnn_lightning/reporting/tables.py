"""Tables on the screen."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from bnn_lightning.training.progress import TrainingSummary


def show_training(console: Console, rows: Mapping[str, tuple[TrainingSummary, Mapping[str, float], list[str]]]) -> None:
    """The table at the end of fit: for each checkpoint its training summary, validation metrics and data notes."""
    table = _table("checkpoint", "epoch", "val nll", "val accuracy", "train nll", "kl/N", "elbo/N", "sparsity")
    for name, (summary, val, _) in rows.items():
        table.add_row(
            name,
            str(summary.epoch + 1),
            _number(val.get("val/nll")),
            _percent(val.get("val/accuracy")),
            _number(summary.nll),
            _number(summary.kl_per_n, 3),
            _number(summary.elbo_per_n, 3),
            "-" if summary.sparsity is None else f"{100 * summary.sparsity:.1f} %",
        )
    console.print(table)
    for name, (summary, _, notes) in rows.items():
        _show_marks(console, f"{name}: ", summary.marks + notes)


def show_evaluation(console: Console, results: Mapping[str, Any]) -> None:
    """The table at the end of validate and test: a row for each metric, with its errors under the first prediction."""
    ways = list(results["predictions"])
    measured, errors = results["predictions"][ways[0]], results["errors"][ways[0]]
    kinds = [kind for kind in ("images", "draws") if any(error[kind] is not None for error in errors.values())]
    table = _table("", ways[0], *(f"± {kind}" for kind in kinds), *ways[1:])
    for name in measured:
        title, show = _METRICS[name.removesuffix("_scaled")]
        if name.endswith("_scaled"):
            title += f" at temperature {results['temperature']:.2f}"
        error = [errors[name][kind] for kind in kinds]
        others = [results["predictions"][way].get(name) for way in ways[1:]]
        table.add_row(title, *(show(value) for value in (measured[name], *error, *others)))
    console.print(f"{results['data']}, {results['images']:,} images:")
    console.print(table)
    if "sparsity" in results:
        show_sparsity(console, results["sparsity"])
    for name, by_score in results.get("ood", {}).items():
        _show_detection(console, name, by_score)
    if results.get("corruptions"):
        _show_corruptions(console, results["corruptions"])
    training = results["training"]
    if training and training["elbo_per_n"] is not None:
        console.print(
            f"elbo/N {training['elbo_per_n']:.3f}, kl/N {training['kl_per_n']:.3f} on the training images "
            f"(N = {training['num_train']:,}, epoch {training['epoch']}, KL weight {training['kl_weight']:.3g})"
        )
    if results.get("sigma_over_prior") is not None:
        console.print(f"mean of sigma / prior sigma {results['sigma_over_prior']:.3f}")
    _show_marks(console, "Note: ", results["marks"])


def _show_detection(console: Console, name: str, by_score: Mapping[str, Mapping[str, Mapping[str, float]]]) -> None:
    table = _table("score", "AUROC", "± images", "AUPR", "± images", "FPR95", "± images")
    for score, row in by_score.items():
        cells = [show(row[metric][part]) for metric, show in _DETECTION for part in ("value", "image_error")]
        table.add_row(_OOD_TITLES[score], *cells)
    console.print(f"Told from {name}:")
    console.print(table)


def _show_corruptions(console: Console, corruptions: Mapping[str, Mapping[int, Mapping[str, float]]]) -> None:
    clean = corruptions["clean"][0]
    severities = sorted({severity for kind, rows in corruptions.items() if kind != "clean" for severity in rows})
    table = _table("corruption", "", "clean", *(f"severity {severity}" for severity in severities))
    for metric in clean:
        title, show = _METRICS[metric]
        for kind, rows in corruptions.items():
            if kind != "clean":
                table.add_row(
                    kind, title, show(clean[metric]), *(show(rows[severity][metric]) for severity in severities)
                )
    console.print("Corrupted test images:")
    console.print(table)


def show_sparsity(console: Console, found: Mapping[str, Any]) -> None:
    """The table of kept weights, layer by layer, under that of test."""
    table = _table("layer", "weights", "kept", "sparsity", "median log alpha")
    for layer in found["layers"]:
        table.add_row(
            layer["layer"],
            f"{layer['weights']:,}",
            f"{layer['kept']:,}",
            _percent(layer["sparsity"]),
            _number(layer["median_log_alpha"], 2),
        )
    table.add_row("all", f"{found['weights']:,}", f"{found['kept']:,}", _percent(found["sparsity"]), "")
    console.print(f"Kept are the {found['kept_are']}:")
    console.print(table)
    console.print(
        f"compression {found['compression']:.1f}x (weights over kept weights), "
        f"{found['compression_with_biases']:.1f}x with biases"
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


def _show_marks(console: Console, start: str, marks: list[str]) -> None:
    if marks:
        console.print(f"{start}{', '.join(marks)}.", style="yellow")


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right", no_wrap=True)
    return table


def _number(value: float | None, digits: int = 4) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _fine(value: float | None) -> str:
    return _number(value, 5)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f} %"


# What a metric is called on the screen, and how its numbers are shown.
_METRICS: dict[str, tuple[str, Callable[[float | None], str]]] = {
    "accuracy": ("accuracy", _percent),
    "nll": ("nll", _number),
    "brier": ("Brier score", _number),
    "ece": ("ECE", _number),
    "adaptive_ece": ("adaptive ECE", _number),
    "aurc": ("AURC", _fine),
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
}
