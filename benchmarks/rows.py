"""Rows of what was measured: a CSV file that grows, and cells of the tables in the documents."""

import csv
import statistics
from collections.abc import Iterable
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
