"""Claims about a study's cells, borne out or not by differences over seeds."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from scipy.special import stdtrit

from bnn_lightning.studies.base import Study
from bnn_lightning.studies.columns import FIXED, heading
from bnn_lightning.studies.lines import Line

_OF_TEST_IMAGES = {"accuracy", "one_accuracy", "mean_accuracy", "kept_accuracy"}


def verdict(study: Study, claim: Mapping[str, Any], lines: Sequence[Line]) -> str:
    """A claim, what its cells come to over pairs that agree in all else, and whether that bears it out."""
    column = claim.get("column", study.score)
    title, scale, digits = heading(column)
    higher, than = (_selected(claim[side], lines, column) for side in ("higher", "than"))
    rows = [(higher[key], than[key]) for key in higher if key in than]
    if not rows:
        return f"{claim['says']} {'No two runs of a seed to compare' if higher and than else 'Not run yet'}."
    pairs = [(scale * float(one[column]), scale * float(other[column])) for one, other in rows]
    mean = statistics.mean(one - other for one, other in pairs)
    # Rows did not always say how many images were tested; the test sets of the sources have 10,000.
    images = min(int(row.get("test_images") or 10_000) for row in rows[0])
    half = _half_width(pairs, column, images)
    within = claim.get("within")
    what = f"{_named(claim['higher'])} - {_named(claim['than'])}, {title}: {mean:+,.{digits}f}"
    what += f" ± {half:,.{digits}f} ({_counted(len(pairs))})" if 0 < half < math.inf else f" ({_counted(len(pairs))})"
    if within is not None:
        inside, outside = abs(mean) + half <= within, abs(mean) - half > within
        found = "Confirmed" if inside else "Contradicted" if outside else "Not settled"
    else:
        found = "Confirmed" if mean - half > 0 else "Contradicted" if mean + half < 0 else "Not settled"
    return f"{claim['says']} **{found}**: {what}."


def _selected(wanted: Any, lines: Sequence[Line], column: str) -> dict[tuple[str, ...], Mapping[str, Any]]:
    """Rows of the cells that a claim names, by what else tells them apart and seed."""
    found = {}
    for line in lines:
        if not line.cell.is_among(wanted):
            continue
        named = line.cell.axes if isinstance(wanted, str) else wanted
        rest = [value for axis, value in line.cell.axes.items() if axis not in named]
        for row in line.found:
            if row.get(column) not in (None, ""):
                found[(*rest, str(row["seed"]))] = row
    return found


def _half_width(pairs: Sequence[tuple[float, float]], column: str, images: int) -> float:
    """Half of the 95 % interval of the mean difference.

    By Student's t over pairs; of a single pair of test accuracies, in percent, by the sampling error of the images; of
    a single pair of anything else nothing is known.
    """
    if column in FIXED:
        return 0.0
    if len(pairs) > 1:
        differences = [one - other for one, other in pairs]
        return float(stdtrit(len(pairs) - 1, 0.975)) * statistics.stdev(differences) / math.sqrt(len(pairs))
    if column in _OF_TEST_IMAGES:
        return 1.96 * math.sqrt(sum(value * (100 - value) for value in pairs[0]) / images)
    return math.inf


def _named(wanted: Any) -> str:
    return wanted if isinstance(wanted, str) else ", ".join(map(str, wanted.values()))


def _counted(pairs: int) -> str:
    return "one pair" if pairs == 1 else f"95 %, {pairs} pairs"
