"""Tests the claims of a study by the differences between its cells, paired by seed."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from scipy.special import stdtrit

from bnn_lightning.studies.base import Study
from bnn_lightning.studies.columns import FIXED, heading
from bnn_lightning.studies.lines import Line, standard_deviation
from bnn_lightning.wording import counted

_TEST_ACCURACIES = {"accuracy", "one_accuracy", "mean_accuracy", "kept_accuracy"}


def verdict(study: Study, claim: Mapping[str, Any], lines: Sequence[Line]) -> str:
    """A sentence with the claim, whether it is confirmed, and the mean difference with its 95 % interval.

    Runs are paired that agree in seed and in all axes but those that the claim compares.
    """
    column = claim.get("column", study.score)
    title, scale, digits = heading(column)
    higher, than = (_selected(claim[side], lines) for side in ("higher", "than"))
    all_pairs = [(higher[key], than[key]) for key in higher if key in than]
    row_pairs = [pair for pair in all_pairs if all(row.get(column) not in (None, "") for row in pair)]
    lost = len(all_pairs) - len(row_pairs)  # of runs that diverged, or that do not have this
    if not row_pairs:
        return f"{claim['says']} {'No two runs of a seed to compare' if higher and than else 'Not run yet'}."
    pairs = [(scale * float(first[column]), scale * float(second[column])) for first, second in row_pairs]
    mean = statistics.mean(first - second for first, second in pairs)
    # Early rows do not have the number of test images; it was 10,000 in all of them.
    images = min(int(row.get("test_images") or 10_000) for row in row_pairs[0])
    half = _half_width(pairs, column, images)
    within = claim.get("within")
    difference = f"{_label(claim['higher'])} - {_label(claim['than'])}, {title}: {mean:+,.{digits}f}"
    difference += f" ± {half:,.{digits}f}" if 0 < half < math.inf else ""
    if within is not None:
        inside, outside = abs(mean) + half <= within, abs(mean) - half > within
        result = "Confirmed" if inside else "Contradicted" if outside else "Not settled"
    else:
        result = "Confirmed" if mean - half > 0 else "Contradicted" if mean + half < 0 else "Not settled"
    if lost:
        result = "Not settled"
    without = f"; {counted(lost, 'pair')} without a value" if lost else ""
    return f"{claim['says']} **{result}**: {difference} ({_pair_count(len(pairs))}{without})."


def _selected(selection: Any, lines: Sequence[Line]) -> dict[tuple[str, ...], Mapping[str, Any]]:
    """The rows of the cells that one side of a claim selects, by their values on the other axes and their seed."""
    selected = {}
    for line in lines:
        if not line.cell.matches(selection):
            continue
        compared_axes = line.cell.axes if isinstance(selection, str) else selection
        other_values = [value for axis, value in line.cell.axes.items() if axis not in compared_axes]
        for row in line.runs:
            selected[(*other_values, str(row["seed"]))] = row
    return selected


def _half_width(pairs: Sequence[tuple[float, float]], column: str, images: int) -> float:
    """Half of the 95 % interval of the mean difference.

    Several pairs: by Student's t. A single pair of test accuracies, in percent, or several whose differences are equal,
    because there are few images: by the sampling error of the images. A single pair of anything else: infinite. Columns
    that are the same in every run: 0.
    """
    if column in FIXED:
        return 0.0
    deviation = standard_deviation([first - second for first, second in pairs])
    if len(pairs) > 1 and deviation != 0:
        return float(stdtrit(len(pairs) - 1, 0.975)) * deviation / math.sqrt(len(pairs))
    if column in _TEST_ACCURACIES:
        return 1.96 * math.sqrt(sum(value * (100 - value) for value in pairs[0]) / images)
    return math.inf if len(pairs) == 1 else 0.0


def _label(selection: Any) -> str:
    return selection if isinstance(selection, str) else ", ".join(map(str, selection.values()))


def _pair_count(pairs: int) -> str:
    return "one pair" if pairs == 1 else f"95 %, {pairs} pairs"
