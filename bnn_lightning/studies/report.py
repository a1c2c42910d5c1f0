"""The report of a study: means over seeds beside published values, verdicts on claims, rankings and a figure."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bnn_lightning.checkpoints.summary import NOT_CONVERGED
from bnn_lightning.files import as_word, atomic_write, relative_to_cwd, write_rows
from bnn_lightning.reporting import figures
from bnn_lightning.reporting.figures.costs import Priced
from bnn_lightning.reporting.figures.studies import Dot, Panel
from bnn_lightning.studies import curves, rows
from bnn_lightning.studies.base import Study
from bnn_lightning.studies.chosen import chosen_sentence, chosen_table
from bnn_lightning.studies.claims import verdict
from bnn_lightning.studies.columns import COLUMNS, TEXTS, heading, row_column
from bnn_lightning.studies.lines import NOT_RUN, Line, cell_text, report_lines, standard_deviation
from bnn_lightning.studies.rankings import rankings


def write_report(study: Study, folder: Path) -> str:
    """Writes the report to NAME.md, means to NAME_means.csv and the figure to NAME.png, and returns the report.

    Args:
        study: to report on.
        folder: of its rows, NAME.csv, and of the files that are written.

    Raises:
        UnwritableError: when a file cannot be written.
    """
    text, lines = report(study, folder)
    measured = dict.fromkeys([*COLUMNS, *map(row_column, study.columns)])
    if study.search:
        atomic_write(folder / f"{study.name}.md", text.encode())
        return f"{text}\nWritten: {relative_to_cwd(folder / f'{study.name}.md')}"
    means = [
        {**line.cell.axes, "seeds": len(line.runs)}
        | {
            f"{column} {name}": function(values)
            for column in measured
            if column not in TEXTS and (values := line.values(column))
            for name, function in (("mean", statistics.mean), ("stdev", standard_deviation))
        }
        | {"caveats": line.caveats}
        for line in lines
    ]
    columns = list(dict.fromkeys(name for row in means for name in row))
    write_rows(folder / f"{study.name}_means.csv", columns, means)
    if study.kind == "acquisition":
        write_rows(folder / f"{study.name}_curves.csv", curves.COLUMNS, curves.rows_of(lines))
    scored = [line for line in lines if line.values(study.score)]
    if scored:
        _draw(study, scored, folder / f"{study.name}.png")
    atomic_write(folder / f"{study.name}.md", text.encode())
    endings = [
        ".md",
        "_means.csv",
        *(["_curves.csv"] if study.kind == "acquisition" else []),
        *([".png"] if scored else []),
    ]
    return f"{text}\nWritten: {', '.join(relative_to_cwd(folder / f'{study.name}{ending}') for ending in endings)}"


def _draw(study: Study, lines: Sequence[Line], path: Path) -> None:
    """Draws the study's learning curves, its score against a cost, or its score and, where it has values, elbo/N."""
    if study.kind == "acquisition":
        figures.learning_curves(path, curves.of_lines(lines), study.title)
        return
    if study.against:
        _draw_against(study, lines, path)
        return
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


def _draw_against(study: Study, lines: Sequence[Line], path: Path) -> None:
    """Draws the score against the cost that the study names, a panel for each value of the first of several axes."""
    title, scale, _ = heading(study.against)
    panels: dict[str, list[Priced]] = {}
    for line in lines:
        if costs := line.values(study.against):
            first, *others = line.cell.axes.values()
            dots = _dots(study.score, line)
            cell = Priced(", ".join(others) or first, scale * statistics.mean(costs), dots)
            panels.setdefault(first if others else "", []).append(cell)
    if panels:
        figures.quality_against_cost(path, panels, title, heading(study.score)[0], study.title)


def _panel(column: str, lines: Sequence[Line], published: Mapping[str, float]) -> Panel:
    names = [line.cell.name for line in lines]
    return Panel(
        heading(column)[0],
        [_dots(column, line) for line in lines],
        {names.index(name): value for name, value in published.items() if name in names},
    )


def _dots(column: str, line: Line) -> list[Dot]:
    """The runs of a cell that have a value in a column."""
    _, scale, _ = heading(column)
    return [
        Dot(scale * float(row[column]), NOT_CONVERGED not in (row.get("caveats") or ""))
        for row in line.runs
        if row.get(column) not in (None, "")
    ]


def report(study: Study, folder: Path) -> tuple[str, list[Line]]:
    """The report as Markdown, and its lines, from the rows in ``folder/NAME.csv``."""
    all_rows = rows.read(folder / f"{study.name}.csv")
    if study.search:
        return _search_report(study, all_rows), []
    lines = report_lines(study, all_rows)
    parts = [f"## {study.title}", study.about, _table(study, lines)]
    if study.kind == "acquisition" and any(line.runs for line in lines):
        parts += [curves.ABOUT, _markdown(curves.table(study, lines))]
    if study.source:
        parts.append(f"Published: {study.source}.")
    if study.not_run:
        parts.append(" ".join(f"{name}: not run, {reason}." for name, reason in study.not_run.items()))
    if not any(line.runs for line in lines):
        return "\n\n".join(part.strip() for part in parts if part.strip()) + "\n", lines
    if verdicts := [verdict(study, claim, lines) for claim in study.claims]:
        parts.append("\n".join(f"- {sentence}" for sentence in verdicts))
    if study.chosen:
        parts += [chosen_sentence(study), _markdown(chosen_table(study, lines))]
    if ranks := rankings(study, lines):
        parts += ["Places of the cells, 1 for the best:", _markdown(ranks)]
    used = sum(len(line.runs) for line in lines)
    unused = len([row for row in all_rows if not row.get("failed")]) - used
    facts = [f"`bnn study {as_word(study.path)}`: {used} runs"]
    if used:
        seconds = sum(sum(line.values("seconds")) for line in lines)
        versions = dict.fromkeys(row["versions"] for line in lines for row in line.runs)
        machines = dict.fromkeys(row["machine"] for line in lines for row in line.runs)
        facts += [f"{seconds / 60:.0f} minutes of training", *versions, *machines]
    if unused:
        facts.append(f"{unused} rows of other settings left out")
    parts.append(f"{', '.join(facts)}.")
    return "\n\n".join(part.strip() for part in parts if part.strip()) + "\n", lines


def _table(study: Study, lines: Sequence[Line]) -> str:
    if all(line.state == NOT_RUN for line in lines):
        return f"None of its {len(lines)} cells has run yet."
    columns = list(dict.fromkeys([study.score, *study.columns]))
    columns = [column for column in columns if any(cell_text(line, column) for line in lines)]
    heads = [*study.axes, "seeds"]
    for column in columns:
        heads.append(heading(column)[0])
        if column in study.published:
            heads += ["published", "difference"]
    body = []
    for line in lines:
        cells = [line.cell.axes.get(axis, "") for axis in study.axes] + [str(len(line.runs) or "")]
        for column in columns:
            cells.append(cell_text(line, column))
            if column in study.published:
                cells += _published_and_difference(study, line, column)
        body.append([*cells, line.caveats])
    return _markdown([[*heads, ""], *body])


def _markdown(table: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose first row is its head."""
    head, *body = ([_cell(text) for text in row] for row in table)
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *body])


def _cell(text: str) -> str:
    """A text that stays within its cell."""
    return " ".join(text.split("\n")).replace("|", r"\|")


def _published_and_difference(study: Study, line: Line, column: str) -> list[str]:
    """The published value of a cell, and by how much our mean differs from it; empty texts where there is none."""
    _, scale, digits = heading(column)
    published = study.published[column].get(line.cell.name)
    if published is None:
        return ["", ""]
    values = line.values(column)
    difference = f"{scale * statistics.mean(values) - published:+.{digits}f}" if values else ""
    return [f"{published:g}", difference]


def _search_report(study: Study, all_rows: Sequence[Mapping[str, Any]]) -> str:
    """The best trials of a search, by validation NLL."""
    trials = [row for row in all_rows if rows.trial_values(study, row) is not None and not row.get("failed")]
    ranked = sorted(trials, key=rows.search_objective)
    of_classes = any(row.get("accuracy") for row in trials)
    columns = ["val_nll", *(("val_accuracy", "accuracy") if of_classes else ("val_skill", "rmse")), "nll", "elbo_per_n"]
    heads = [*study.axes, *(COLUMNS[column][0] for column in columns), ""]
    body = []
    for row in ranked[:10]:
        cells = [row[axis] for axis in study.axes]
        for column in columns:
            _, scale, digits = COLUMNS[column]
            cells.append(f"{scale * float(row[column]):.{digits}f}" if row.get(column) else "")
        body.append([*cells, row.get("caveats") or ""])
    table = _markdown([heads, *body])
    count = f"The best {min(10, len(ranked))} of {len(ranked)} trials by validation NLL; {study.trials} are asked for."
    return f"## {study.title}\n\n{study.about.strip()}\n\n{table}\n\n{count}\n"
