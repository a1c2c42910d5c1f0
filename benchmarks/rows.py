"""Reads and extends CSV files of measurements, and prints them as the tables of the documents."""

import csv
import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path


def add(path: Path, row: dict) -> None:
    """Adds a row to the file; it may have columns that the other rows do not have."""
    rows = [*(read(path) if path.exists() else []), row]
    columns = list(dict.fromkeys(column for row in rows for column in row))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def read(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def cell(texts: Iterable[str], scale: float, digits: int) -> str:
    """Mean and standard deviation of the values of a column, as the text of a table's cell."""
    values = [scale * float(text) for text in texts if text]
    if not values:
        return "-"
    spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{spread}"


def show(title: str, columns: list[str], lines: Iterable[list[str]]) -> None:
    """Prints a Markdown table."""
    print(f"| {' | '.join([title, *columns])} |")
    print(f"| {' | '.join('---' for _ in range(len(columns) + 1))} |")
    for line in lines:
        print(f"| {' | '.join(line)} |")
    print()


def show_means(
    title: str, count: str, by_name: Mapping[str, list[dict[str, str]]], columns: list[tuple[str, str, float, int]]
) -> None:
    """Prints a line for each name: its number of rows, mean and standard deviation of each column, and all caveats.

    Args:
        title: heading of the column of names.
        count: heading of the column of numbers of rows.
        by_name: the rows of each name.
        columns: (key, title, scale, digits) of each column.
    """
    lines = []
    for name, rows in by_name.items():
        cells = [cell([row[key] for row in rows], scale, digits) for key, _, scale, digits in columns]
        caveats = "; ".join(dict.fromkeys(row["caveats"] for row in rows if row["caveats"]))
        lines.append([name, str(len(rows)), *cells, caveats])
    show(title, [count, *(heading for _, heading, _, _ in columns), ""], lines)
