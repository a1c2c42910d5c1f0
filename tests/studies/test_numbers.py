"""A study whose labels are numbers: its rows, its report and its rankings."""

from pathlib import Path

import pytest
import yaml

from bnn_lightning.studies import rows, study
from tests.helpers import ON_THE_COMMAND_LINE

pytestmark = [*ON_THE_COMMAND_LINE, pytest.mark.slow]
BASE = {
    "model": {"network": "TabularMLP", "method": None, "likelihood": "Gaussian"},
    "data": {"class_path": "Table", "init_args": {"path": "table.csv", "val_split": 0.5}},
    "trainer": {"max_epochs": 2},
}


def test_rows_report_and_rankings_are_of_numbers():
    Path("table.csv").write_text("a,b\n" + "\n".join(f"{n},{3 * n}" for n in range(60)))
    Path("base.yaml").write_text(yaml.safe_dump(BASE))
    cells = {name: {"model.network.hidden": hidden, "data.seed": "{seed}"} for name, hidden in (("x", [4]), ("y", [9]))}
    content = {"title": "Numbers", "base": "base.yaml", "cells": cells, "seeds": [3], "score": "nll"}
    content |= {"columns": ["rmse", "val_skill", "coverage_90"], "rankings": ["rmse"]}
    content |= {"published": {"nll": {"x": 5.0}}}
    Path("tiny.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    assert study(["tiny.yaml"]) == 0
    recorded = rows.read(Path("results/tiny.csv"))
    assert [row["failed"] for row in recorded if row.get("failed")] == []
    assert [int(row["parameters"]) for row in recorded] == [4 * 3 + 2, 9 * 3 + 2]  # one for the noise
    assert [int(row["multiply_adds"]) for row in recorded] == [8, 18]
    assert all("--data.seed 3" in row["command"] for row in recorded)
    for row in recorded:
        assert float(row["rmse"]) > 0
        assert float(row["val_nll"]) > 0
        assert "accuracy" not in row
    assert study(["tiny.yaml", "--report"]) == 0
    report = Path("results/tiny.md").read_text()
    assert "RMSE" in report
    better = min(recorded, key=lambda row: float(row["rmse"]))["cell"]
    assert f"| {better} |  | 1 |" in report or f"| {better} | 1 | 1 |" in report
