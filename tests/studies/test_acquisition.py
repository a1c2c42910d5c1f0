"""Studies of labelling loops: curves and their tables, refusals, and the same rows after a kill."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from PIL import Image

from bnn_lightning.cli import UsageError
from bnn_lightning.studies import curves, one_run, rows, running, study
from bnn_lightning.studies.base import Study
from bnn_lightning.studies.report import report
from tests.helpers import table

BASE = {
    "model": {"network": "LeNet300100", "method": "MCDropout", "members": 2, "sampling": {"test_samples": 4}},
    "data": {"class_path": "MNIST", "init_args": {"val_split": 0, "batch_size": 32}},
    "steps": 3,
    "count": 2,
    "budget": 26,
}
GRID = {"rule": {"BALD": {"by": "bald"}, "random": {"by": "random"}}}


@pytest.fixture
def write(tmp_path, fake_mnist, in_an_empty_folder):
    """Writes a study of labelling loops, with its base beside it."""

    def of(**settings):
        base = json.loads(json.dumps(BASE))
        base["data"]["init_args"]["root"] = fake_mnist()
        (tmp_path / "base.yaml").write_text(yaml.safe_dump(base))
        content = {"title": "Tiny", "kind": "acquisition", "base": "base.yaml", "grid": GRID, "score": "curve_accuracy"}
        path = tmp_path / "tiny.yaml"
        path.write_text(yaml.safe_dump(content | settings, sort_keys=False))
        return path

    return of


def row_of(task, accuracies):
    labels = " ".join(str(20 + 10 * place) for place in range(len(accuracies)))
    by_round = {"accuracy_by_round": " ".join(map(str, accuracies)), "labels_by_round": labels}
    nlls = {"nll_by_round": " ".join(str(1 - accuracy) for accuracy in accuracies)}
    measured = {
        "accuracy": accuracies[-1],
        "curve_accuracy": sum(accuracies) / len(accuracies),
        "seconds": 60,
        "versions": "v",
        "machine": "m",
    }
    return rows.head(task) | by_round | nlls | measured | {"caveats": "", "command": task.command}


def test_curves_give_the_labels_that_the_median_run_needs(write, monkeypatch):
    runs = {
        ("BALD", 0): [0.5, 0.91, 0.96],
        ("BALD", 1): [0.6, 0.89, 0.94],
        ("BALD", 2): [0.7, 0.90, 0.95],
        ("random", 0): [0.5, 0.6, 0.7],
        ("random", 1): [0.5, 0.6, 0.8],
        ("random", 2): [0.5, 0.6, 0.9],
    }
    monkeypatch.setattr(running, "run_task", lambda task, *_: row_of(task, runs[task.cell.name, task.seed]))
    claims = [{"says": "BALD is better.", "higher": {"rule": "BALD"}, "than": {"rule": "random"}}]
    path = write(seeds=[0, 1, 2], at=[30], claims=claims)
    assert study([str(path)]) == 0
    assert study([str(path), "--report"]) == 0
    text = Path("results/tiny.md").read_text()
    assert "| rule | labels to 90 % | labels to 95 % | accuracy at 30 | NLL at 30 |" in text
    assert "| BALD | 30 | 40 | 90.0 ± 1.0 | 0.100 ± 0.010 |" in text
    assert "| random | not by 40 | not by 40 | 60.0 ± 0.0 | 0.400 ± 0.000 |" in text
    assert "BALD is better. **Confirmed**" in text
    recorded = table(Path("results/tiny_curves.csv"))
    assert len(recorded) == 18
    assert recorded[1] == {"cell": "BALD", "seed": "0", "labels": "30", "accuracy": "0.91", "nll": recorded[1]["nll"]}
    with Image.open("results/tiny.png") as figure:
        assert figure.size[0] > 1000


def test_curves_of_several_pools_have_a_row_of_the_figure_each(write, monkeypatch):
    monkeypatch.setattr(running, "run_task", lambda task, *_: row_of(task, [0.5, 0.9]))
    path = write(grid={"pool": {"plain": {}, "twice": {"copies": 2}}, **GRID})
    assert study([str(path)]) == 0
    _, lines = report(Study.read(path), Path("results"))
    assert [(curve.row, curve.name) for curve in curves.of_lines(lines)] == [
        *(("plain", "BALD"), ("plain", "random"), ("twice", "BALD"), ("twice", "random"))
    ]
    assert study([str(path), "--report"]) == 0
    with Image.open("results/tiny.png") as figure:
        assert figure.size[1] > 800


def test_runs_that_are_not_as_far_count_where_all_have_come_to(write, monkeypatch):
    lengths = {0: [0.5, 0.91, 0.96], 1: [0.5, 0.92]}
    monkeypatch.setattr(running, "run_task", lambda task, *_: row_of(task, lengths[task.seed]))
    path = write(seeds=[0, 1], grid={"rule": {"BALD": {"by": "bald"}}})
    assert study([str(path)]) == 0
    _, (line,) = report(Study.read(path), Path("results"))
    assert (curves.first_labels(line, 90), curves.first_labels(line, 95)) == (30, None)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"kind": "labelling"}, "kind must be training or acquisition, got labelling."),
        ({"test": {"data.eval_batch_size": 5}}, "test must be left out of an acquisition, which tests in each round."),
        ({"rankings": ["accuracy"]}, "rankings must be left out of an acquisition"),
        (
            {"cells": {"five": {"members": 5}}},
            "members must be left out of an acquisition, whose network has model.members.",
        ),
        ({"kind": "training", "at": [30]}, "at is for kind: acquisition"),
        ({"at": ["many"]}, "at must be a list of different whole numbers"),
    ],
)
def test_files_that_make_no_sense(write, settings, sentence):
    with pytest.raises(UsageError, match=sentence):
        Study.read(write(**settings))


@pytest.mark.filterwarnings("ignore")
def test_a_wrong_rule_is_found_by_a_dry_run(write, capsys):
    path = write(grid={"rule": {"margin": {"by": "margin"}}})
    assert study([str(path), "--dry_run"]) == 1
    assert "will fail: margin: --by must be one of" in capsys.readouterr().out


def without_time(path):
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows.read(path)]


def test_a_simulation_that_has_left_nothing_is_a_row_that_says_so(write, monkeypatch):
    task = Study.read(write()).tasks()[0]
    monkeypatch.setattr(one_run, "run_bnn", lambda words, log: "")  # its folder was deleted, or is elsewhere
    row = one_run.run_task(task, Path("logs"), print)
    assert row["failed"] == "nothing was saved"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_study_that_is_killed_ends_in_the_same_rows(write, tmp_path, monkeypatch):
    path = write()
    assert study([str(path)]) == 0
    whole = without_time(Path("results/tiny.csv"))
    assert [row["labels_by_round"] for row in whole] == ["20 22 24 26"] * 2
    assert all(row["command"].startswith("bnn simulate --config base.yaml --by ") for row in whole)
    folder = tmp_path / "killed"
    folder.mkdir()
    monkeypatch.chdir(folder)
    for name in ("tiny.yaml", "base.yaml"):
        (folder / name).write_text((tmp_path / name).read_text())
    process = subprocess.Popen(
        [sys.executable, "-m", "bnn_lightning", "study", "tiny.yaml"], start_new_session=True, stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 240
    while not list(folder.glob("lightning_logs/*/*/rounds.csv")) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not Path("results/tiny.csv").exists()
    assert study(["tiny.yaml"]) == 0
    assert without_time(Path("results/tiny.csv")) == whole
