"""The report of a study: means over seeds, the published figures beside them, and what its claims come to."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bnn_lightning.files import shown, write_rows, write_whole
from bnn_lightning.reporting import figures
from bnn_lightning.reporting.figures.studies import Dot, Panel
from bnn_lightning.studies import rows
from bnn_lightning.studies.base import Study
from bnn_lightning.studies.claims import verdict
from bnn_lightning.studies.columns import COLUMNS, TEXTS, heading
from bnn_lightning.studies.lines import Line, lines_of, spread, written
from bnn_lightning.studies.rankings import rankings
from bnn_lightning.training.progress import NOT_CONVERGED


def write_report(study: Study, folder: Path) -> str:
    """Writes NAME_means.csv and NAME.png beside the rows, and NAME.md with the report; gives the report."""
    text, lines = report(study, folder)
    if study.search:
        write_whole(folder / f"{study.name}.md", text.encode())
        return f"{text}\nWritten: {shown(folder / f'{study.name}.md')}"
    means = [
        {**line.cell.axes, "seeds": len(line.found)}
        | {
            f"{column} {name}": function(values)
            for column in COLUMNS
            if column not in TEXTS and (values := line.values(column))
            for name, function in (("mean", statistics.mean), ("stdev", spread))
        }
        | {"marks": line.marks}
        for line in lines
    ]
    columns = list(dict.fromkeys(name for row in means for name in row))
    write_rows(folder / f"{study.name}_means.csv", columns, means)
    drawn = [line for line in lines if line.values(study.score)]
    if drawn:
        _draw(study, drawn, folder / f"{study.name}.png")
    write_whole(folder / f"{study.name}.md", text.encode())
    endings = [".md", "_means.csv", *([".png"] if drawn else [])]
    return f"{text}\nWritten: {', '.join(shown(folder / f'{study.name}{ending}') for ending in endings)}"


def _draw(study: Study, lines: Sequence[Line], path: Path) -> None:
    """The figure: what the study compares, and elbo/N beside it where there is one."""
    columns = [study.score]
    if study.score != "elbo_per_n" and any(line.values("elbo_per_n") for line in lines):
        columns.append("elbo_per_n")
    names = [line.cell.name for line in lines]
    figures.compare(
        path,
        names,
        [next(iter(line.cell.axes.values())) for line in lines],
        [_panel(column, lines, study.published.get(column, {})) for column in columns],
        study.title,
    )


def _panel(column: str, lines: Sequence[Line], published: Mapping[str, float]) -> Panel:
    title, scale, _ = heading(column)
    dots = [
        [
            Dot(scale * float(row[column]), NOT_CONVERGED not in (row.get("marks") or ""))
            for row in line.found
            if row.get(column) not in (None, "")
        ]
        for line in lines
    ]
    names = [line.cell.name for line in lines]
    return Panel(title, dots, {names.index(name): value for name, value in published.items() if name in names})


def report(study: Study, folder: Path) -> tuple[str, list[Line]]:
    """The report as Markdown, and its lines."""
    found = rows.read(folder / f"{study.name}.csv")
    if study.search:
        return _search_report(study, found), []
    lines = lines_of(study, found)
    parts = [f"## {study.title}", study.about, _table(study, lines)]
    if study.source:
        parts.append(f"Published: {study.source}.")
    if study.not_run:
        parts.append(" ".join(f"{name}: not run, {reason}." for name, reason in study.not_run.items()))
    if verdicts := [verdict(study, claim, lines) for claim in study.claims]:
        parts.append("\n".join(f"- {one}" for one in verdicts))
    if ordered := rankings(study, lines):
        parts += ["Places of the cells, 1 for the best:", _markdown(ordered)]
    used = sum(len(line.found) for line in lines)
    others = len([row for row in found if not row.get("failed")]) - used
    facts = [f"`bnn study {shown(study.path)}`: {used} runs"]
    if used:
        seconds = sum(sum(line.values("seconds")) for line in lines)
        versions = dict.fromkeys(row["versions"] for line in lines for row in line.found)
        machines = dict.fromkeys(row["machine"] for line in lines for row in line.found)
        facts += [f"{seconds / 60:.0f} minutes of training", *versions, *machines]
    if others:
        facts.append(f"{others} rows of other settings left out")
    parts.append(f"{', '.join(facts)}.")
    return "\n\n".join(part.strip() for part in parts if part.strip()) + "\n", lines


def _table(study: Study, lines: Sequence[Line]) -> str:
    wanted = list(dict.fromkeys([study.score, *study.columns]))
    wanted = [column for column in wanted if any(written(line, column) for line in lines)]
    heads = [*study.axes, "seeds"]
    for column in wanted:
        heads.append(heading(column)[0])
        if column in study.published:
            heads += ["published", "difference"]
    body = []
    for line in lines:
        cells = [line.cell.axes.get(axis, "") for axis in study.axes] + [str(len(line.found) or "")]
        for column in wanted:
            cells.append(written(line, column))
            if column in study.published:
                cells += _beside(study, line, column)
        body.append([*cells, line.marks])
    return _markdown([[*heads, ""], *body])


def _markdown(table: Sequence[Sequence[str]]) -> str:
    """A table whose first row is its head."""
    head, *body = table
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *body])


def _beside(study: Study, line: Line, column: str) -> list[str]:
    _, scale, digits = heading(column)
    theirs = study.published[column].get(line.cell.name)
    if theirs is None:
        return ["", ""]
    values = line.values(column)
    difference = f"{scale * statistics.mean(values) - theirs:+.{digits}f}" if values else ""
    return [f"{theirs:g}", difference]


def _search_report(study: Study, found: Sequence[Mapping[str, Any]]) -> str:
    """The best trials of a search, by validation NLL."""
    present = [row for row in found if rows.trial_of(study, row) is not None]
    ranked = sorted((row for row in present if not row.get("failed")), key=rows.value_of)
    shown_columns = ["val_nll", "val_accuracy", "accuracy", "nll", "elbo_per_n"]
    heads = [*study.axes, *(COLUMNS[column][0] for column in shown_columns), ""]
    body = []
    for row in ranked[:10]:
        cells = [row[axis] for axis in study.axes]
        for column in shown_columns:
            _, scale, digits = COLUMNS[column]
            cells.append(f"{scale * float(row[column]):.{digits}f}" if row.get(column) else "")
        body.append([*cells, row.get("marks") or ""])
    table = _markdown([heads, *body])
    count = f"The best {min(10, len(ranked))} of {len(ranked)} trials by validation NLL; {study.trials} are asked for."
    return f"## {study.title}\n\n{study.about.strip()}\n\n{table}\n\n{count}\n"
