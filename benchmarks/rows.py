"""Rows of what was measured: a CSV file that grows, and cells of the tables in the documents."""

import csv
import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path


def add(rows: Path, row: dict) -> None:
    """Adds a row; it may have columns that the others have not."""
    found = read(rows) if rows.exists() else []
    columns = list(dict.fromkeys(key for one in [*found, row] for key in one))
    with rows.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows([*found, row])


def read(rows: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(rows.read_text().splitlines()))


def cell(texts: Iterable[str], scale: float, digits: int) -> str:
    """Mean and standard deviation of a column over rows."""
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
    """Prints a line for each name: how many rows it has, mean and spread of each column, and the marks of all.

    A column is (key, title, scale, digits).
    """
    lines = []
    for name, found in by_name.items():
        cells = [cell([row[key] for row in found], scale, digits) for key, _, scale, digits in columns]
        marks = "; ".join(dict.fromkeys(row["marks"] for row in found if row["marks"]))
        lines.append([name, str(len(found)), *cells, marks])
    show(title, [count, *(heading for _, heading, _, _ in columns), ""], lines)
