"""Tables on the screen."""

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from bnn_lightning.checkpoints.summary import TrainingSummary
from bnn_lightning.reporting.caveats import explained
from bnn_lightning.reporting.cells import (
    Cells,
    class_cells,
    corruption_cells,
    detection_cells,
    evaluation_cells,
    kind_of,
    metric_text,
    number,
    percent,
    sparsity_cells,
    target_cells,
)

_ENDLESS = 10_000  # letters in a line, more than any table has
_SHOWN_CLASSES = 12  # of more, the table has those with the lowest accuracies


def show_training(
    console: Console,
    rows: Mapping[str, tuple[TrainingSummary, Mapping[str, float], list[str]]],
    score: str = "accuracy",
    inference: str = "Variational",
) -> None:
    """The table at the end of fit: for each checkpoint its training summary, validation metrics and data notes.

    ``score`` is the name of the likelihood's, ``inference`` that of the class that trained.
    """
    is_sparse = any(summary.sparsity is not None for summary, _, _ in rows.values())
    heads = ["checkpoint", "epoch", "val nll", f"val {score}", "train nll", "kl/N", "elbo/N"]
    table = _table(*heads, *(["sparsity"] if is_sparse else []))
    for name, (summary, val, _) in rows.items():
        cells = [
            name,
            str(summary.epoch + 1),
            number(val.get("val/nll")),
            metric_text(score, val.get(f"val/{score}")),
            number(summary.nll),
            number(summary.kl_per_n, 3),
            number(summary.elbo_per_n, 3),
        ]
        table.add_row(*cells, *([percent(summary.sparsity)] if is_sparse else []))
    _print(console, table)
    caveats = {name: summary.caveats + notes for name, (summary, _, notes) in rows.items()}
    names: dict[tuple[str, ...], list[str]] = {}
    for name, of_one in caveats.items():
        names.setdefault(tuple(of_one), []).append(name)
    for of_some, alike in names.items():
        _show_caveats(console, f"{' and '.join(alike)}: ", list(of_some))
    for caveat in dict.fromkeys(chain.from_iterable(caveats.values())):
        if cure := explained(caveat, inference).cure:
            text = f"What helps against {caveat!r}: {cure}"
            console.print(text, markup=False, highlight=False, soft_wrap=True)


def show_evaluation(console: Console, results: Mapping[str, Any]) -> None:
    """The table at the end of validate and test: a row for each metric, with its errors under the first prediction."""
    sign = _plus_minus(console)
    _show(console, evaluation_cells(results, sign))
    if "per_class" in results:
        _show(console, class_cells(results, _SHOWN_CLASSES))
    if len(results.get("per_target", ())) > 1:
        _show(console, target_cells(results["per_target"]))
    if "sparsity" in results:
        show_sparsity(console, results["sparsity"])
    for name, by_score in results.get("ood", {}).items():
        _show(console, detection_cells(name, by_score, sign))
    if results.get("corruptions"):
        _show(console, corruption_cells(results["corruptions"]))
    training = results["training"]
    if training and training["elbo_per_n"] is not None:
        console.print(
            f"elbo/N {training['elbo_per_n']:.3f}, kl/N {training['kl_per_n']:.3f} on the training {kind_of(results)} "
            f"(N = {training['num_train']:,}, epoch {training['epoch']}, KL weight {training['kl_weight']:.3g})"
        )
    if results.get("sigma_over_prior") is not None:
        console.print(f"mean of sigma / prior sigma {results['sigma_over_prior']:.3f}")
    for caveat in results["caveats"]:
        _show_caveats(console, "Note: ", [caveat])


def show_sparsity(console: Console, sparsity: Mapping[str, Any]) -> None:
    """The table of kept weights, layer by layer, under that of test."""
    _show(console, sparsity_cells(sparsity))
    console.print(
        f"compression {sparsity['compression']:.1f}x (weights over kept weights), "
        f"{sparsity['compression_with_biases']:.1f}x with biases"
    )


def show_pruning(console: Console, rows: Sequence[Mapping[str, float]]) -> None:
    """The table of ``bnn prune``: what mean weights are worth without those of lowest |mu| / sigma."""
    table = _table("removed", "weights kept", "|mu| / sigma above", "accuracy", "nll")
    for row in rows:
        table.add_row(
            percent(row["removed"]),
            f"{row['kept']:,}",
            number(row["min_signal_to_noise"], 3),
            percent(row["accuracy"]),
            number(row["nll"]),
        )
    _print(console, table)


def show_export(console: Console, rows: Sequence[Mapping[str, Any]]) -> None:
    """The table of ``bnn export``: what each network is worth and costs."""
    table = _table(
        "network", "parameters", "accuracy", "bytes on disk", "ms, 1 image", f"ms, {rows[0]['batch']} images"
    )
    for row in rows:
        table.add_row(
            row["network"],
            f"{row['parameters']:,}",
            percent(row["accuracy"]),
            f"{row['bytes']:,}",
            number(row["ms_1"], 3),
            number(row["ms_batch"], 3),
        )
    _print(console, table)


def _show_caveats(console: Console, start: str, caveats: list[str]) -> None:
    if caveats:
        console.print(f"{start}{', '.join(caveats)}.", style="yellow", markup=False)


def _show(console: Console, cells: Cells) -> None:
    table = _table(*cells.columns)
    for row in cells.rows:
        table.add_row(*map(Text, row))  # names of classes are the user's: brackets in them are no markup
    console.print(f"{cells.title}:", markup=False)
    _print(console, table)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right", no_wrap=True)
    return table


def _print(console: Console, table: Table) -> None:
    """Prints whole numbers and names: of a line that is too long for the terminal the rest is in the next one."""
    table.width = Measurement.get(console, console.options.update(width=_ENDLESS), table).maximum
    console.print(table, crop=False)


def _plus_minus(console: Console) -> str:
    """The sign ±, or two that any console has: a table's columns are as wide as what is shown."""
    try:
        "±".encode(console.encoding)
    except UnicodeEncodeError:
        return "+-"
    return "±"
