"""The columns of a study's rows, and how its report shows them."""

import statistics
from collections.abc import Callable, Sequence
from typing import Any

# For each column: its title, the factor that values are multiplied by, and the number of decimals.
COLUMNS: dict[str, tuple[str, float, int]] = {
    "accuracy": ("accuracy, %", 100, 2),
    "one_accuracy": ("1 sample, %", 100, 2),
    "mean_accuracy": ("mean weights, %", 100, 2),
    "kept_accuracy": ("kept weights, %", 100, 2),
    "val_accuracy": ("validation accuracy, %", 100, 2),
    "train_accuracy": ("training mode, %", 100, 2),
    "nll": ("NLL", 1, 4),
    "one_nll": ("NLL, 1 sample", 1, 4),
    "mean_nll": ("NLL, mean weights", 1, 4),
    "val_nll": ("validation NLL", 1, 4),
    "train_nll": ("training NLL", 1, 4),
    "brier": ("Brier score", 1, 4),
    "ece": ("ECE", 1, 4),
    "nll_scaled": ("NLL at T", 1, 4),
    "ece_scaled": ("ECE at T", 1, 4),
    "rmse": ("RMSE", 1, 4),
    "one_rmse": ("RMSE, 1 sample", 1, 4),
    "mean_rmse": ("RMSE, mean weights", 1, 4),
    "mae": ("MAE", 1, 4),
    "r2": ("R2", 1, 4),
    "crps": ("CRPS", 1, 4),
    "coverage_90": ("coverage of 90 % intervals, %", 100, 2),
    "width_90": ("width of 90 % intervals", 1, 4),
    "calibration_error": ("calibration error", 1, 4),
    "sharpness": ("predictive std", 1, 4),
    "crps_scaled": ("CRPS, scaled", 1, 4),
    "coverage_90_scaled": ("coverage of 90 % intervals, scaled, %", 100, 2),
    "conformal_coverage_90": ("coverage of conformal 90 % intervals, %", 100, 2),
    "conformal_width_90": ("width of conformal 90 % intervals", 1, 4),
    "val_skill": ("validation skill", 1, 4),
    "train_skill": ("training skill", 1, 4),
    "elbo_per_n": ("elbo/N", 1, 3),
    "kl_per_n": ("kl/N", 1, 3),
    "sigma_over_prior": ("sigma / prior", 1, 2),
    "sparsity": ("removed, %", 100, 1),
    "compression": ("compression", 1, 1),
    "corrupted_accuracy": ("corrupted, %", 100, 2),
    "corrupted_nll": ("NLL, corrupted", 1, 4),
    "corrupted_ece": ("ECE, corrupted", 1, 4),
    "passes": ("passes a prediction", 1, 0),
    "curve_accuracy": ("mean accuracy of all rounds, %", 100, 2),
    "curve_nll": ("mean NLL of all rounds", 1, 4),
    "foreign": ("labels spent on no class", 1, 1),
    "parameters": ("parameters", 1, 0),
    "bytes": ("bytes of weights", 1, 0),
    "multiply_adds": ("multiply-adds", 1, 0),
    "step_ms": ("ms a step", 1, 1),
    "seconds": ("s a run", 1, 0),
    "sparsity_by_layer": ("removed by layer, %", 1, 1),
}
TEXTS = {"sparsity_by_layer"}
# Columns of detection, METRIC/SCORE/SET of --data.ood, such as auroc/entropy/NotMNIST: titles of metrics and of scores.
DETECTION: dict[str, tuple[str, float, int]] = {
    "auroc": ("AUROC {}", 1, 3),
    "aupr": ("AUPR {}", 1, 3),
    "fpr95": ("FPR95 {}, %", 100, 1),
}
SCORES = {
    "entropy": "entropy",
    "tempered_entropy": "entropy at T = 3",
    "mutual_information": "MI",
    "epistemic_std": "epistemic std",
    "predictive_std": "predictive std",
}
# Ends of names of columns, or metrics of detection, of which a lower value is better.
LOWER_IS_BETTER = (
    *("nll", "brier", "ece", "nll_scaled", "ece_scaled", "crps_scaled", "rmse", "mae", "crps", "width_90"),
    *("curve_nll", "foreign", "calibration_error", "kl_per_n", "parameters", "multiply_adds", "step_ms", "seconds"),
    *("passes", "bytes", "fpr95"),
)
# Columns that have the same value in every run of a cell.
FIXED = {"parameters", "multiply_adds", "passes", "bytes"}
# How the values of several seeds can be summarised, other than by mean and standard deviation.
STATISTICS: dict[str, tuple[str, Callable[[Sequence[float]], tuple[float, ...]]]] = {
    "median": ("median", lambda values: (statistics.median(values),)),
    "range": ("lowest to highest", lambda values: (min(values), max(values))),
}


def heading(column: str) -> tuple[str, float, int]:
    """A report column's title, the factor that its values are multiplied by, and the number of decimals.

    Raises:
        ValueError: when there is no such column.
    """
    key = row_column(column)
    known = _known(key)
    if known is None or (key != column and key in TEXTS):
        raise ValueError(
            f"columns must be among {', '.join(COLUMNS)}, METRIC/SCORE/SET ({', '.join(DETECTION)}; "
            f"{', '.join(SCORES)}; a set of --data.ood), or median_ or range_ and one of them; got {column}."
        )
    title, scale, digits = known
    return (title if key == column else f"{title}: {STATISTICS[column.partition('_')[0]][0]}"), scale, digits


def _known(key: str) -> tuple[str, float, int] | None:
    """What COLUMNS says of a column, or would say of a column of detection."""
    metric, _, rest = key.partition("/")
    score, _, name = rest.partition("/")
    if metric in DETECTION and score in SCORES and name:
        title, scale, digits = DETECTION[metric]
        return title.format(f"{name} by {SCORES[score]}"), scale, digits
    return COLUMNS.get(key)


def has_numbers(column: Any) -> bool:
    """Whether ``column`` is one of the rows that has a number for each run."""
    return isinstance(column, str) and _known(column) is not None and column not in TEXTS


def lower_is_better(column: str) -> bool:
    """Whether a lower value of a report column is better."""
    return row_column(column).partition("/")[0].endswith(LOWER_IS_BETTER)


def row_column(column: str) -> str:
    """The column of the rows that a report column summarises: "accuracy" for "median_accuracy"."""
    statistic, _, rest = column.partition("_")
    return rest if statistic in STATISTICS else column


def check_column(column: Any, where: str) -> None:
    """Raises ValueError unless ``column`` has a number for each run, so that runs can be compared by it."""
    if not has_numbers(column):
        numbers = ", ".join(name for name in COLUMNS if name not in TEXTS)
        raise ValueError(f"{where} must be one of {numbers}, got {column}.")
