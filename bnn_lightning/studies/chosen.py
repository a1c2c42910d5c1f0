"""The part of a report that chooses a value of one axis for each run by its hold-out, and compares that with others."""

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bnn_lightning.studies.base import Cell, Study
from bnn_lightning.studies.columns import TEXTS, heading, lower_is_better, row_column
from bnn_lightning.studies.lines import Line, standard_deviation

Run = Mapping[str, Any]


def chosen_table(study: Study, lines: Sequence[Line]) -> list[list[str]]:
    """A line for each combination of the other axes: of each seed the run that ``chosen.by`` prefers.

    Only seeds count for which all values of the axis have a run. Columns are means with their standard errors, of the
    study's columns that are numbers and no summary of another kind.
    """
    choice = study.chosen
    by_rest: dict[tuple[str, ...], list[Line]] = {}
    for line in lines:
        if line.cell.axes.get(choice["axis"]) in _among(study):
            by_rest.setdefault(_rest(study, line.cell), []).append(line)
    asked = dict.fromkeys([study.score, *study.columns])
    columns = [column for column in asked if column == row_column(column) and column not in TEXTS]
    title = heading(study.score)[0]
    names = [axis for axis in study.axes if axis != choice["axis"]]
    published = choice.get("published", {})
    head = [*names, "seeds", *(f"{heading(column)[0]} ± standard error" for column in columns)]
    table = [[*head, "chosen", *(f"{title}, {source}" for source in published)]]
    wins, known = Counter[str](), Counter[str]()
    for rest, of_rest in by_rest.items():
        runs = _chosen_runs(of_rest, choice["axis"], choice["by"], study.score)
        cells = [_with_standard_error(runs, column) for column in columns]
        counts = Counter(name for name, _ in runs)
        figures = [figures_of.get(", ".join(rest)) for figures_of in published.values()]
        if runs:
            mean = statistics.mean(heading(study.score)[1] * float(run[study.score]) for _, run in runs)
            for source, figure in zip(published, figures, strict=True):
                if figure is not None:
                    known[source] += 1
                    wins[source] += mean < figure if lower_is_better(study.score) else mean > figure
        chosen = ", ".join(f"{name} {count}" for name, count in counts.most_common())
        shown = ["" if figure is None else f"{figure:g}" for figure in figures]
        table.append([*rest, str(len(runs) or ""), *cells, chosen or "not run yet", *shown])
    if known:
        better = [f"better in {wins[source]} of {known[source]}" for source in published]
        table.append(["", *[""] * (len(table[0]) - len(better) - 1), *better])
    return table


def chosen_sentence(study: Study) -> str:
    """What the table is of."""
    by = heading(study.chosen["by"])[0]
    extreme = "lowest" if lower_is_better(study.chosen["by"]) else "highest"
    return f"For each seed that one of {', '.join(_among(study))} which has the {extreme} {by}:"


def _among(study: Study) -> list[str]:
    axis = study.chosen["axis"]
    values = dict.fromkeys(cell.axes[axis] for cell in study.all_cells() if axis in cell.axes)
    return [str(name) for name in study.chosen.get("among", values)]


def _rest(study: Study, cell: Cell) -> tuple[str, ...]:
    return tuple(cell.axes[axis] for axis in study.axes if axis in cell.axes and axis != study.chosen["axis"])


def _chosen_runs(lines: Sequence[Line], axis: str, by: str, score: str) -> list[tuple[str, Run]]:
    """The name and the run of each seed of which all ``lines`` have a ``score``."""
    runs = [{run["seed"]: run for run in line.runs if run.get(score) not in (None, "")} for line in lines]
    seeds = set.intersection(*(set(of_line) for of_line in runs))
    sign = 1 if lower_is_better(by) else -1

    def badness(run: Run) -> float:
        value = run.get(by)
        number = math.nan if value in (None, "") else sign * float(value)
        return math.inf if math.isnan(number) else number  # one that diverged

    chosen = []
    for seed in sorted(seeds, key=int):
        place = min(range(len(lines)), key=lambda place: badness(runs[place][seed]))
        chosen.append((lines[place].cell.axes[axis], runs[place][seed]))
    return chosen


def _with_standard_error(runs: Iterable[tuple[str, Run]], column: str) -> str:
    """Mean and standard error of a column."""
    _, scale, digits = heading(column)
    values = [scale * float(run[column]) for _, run in runs if run.get(column) not in (None, "")]
    if not values:
        return ""
    error = f" ± {standard_deviation(values) / math.sqrt(len(values)):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{error}"
