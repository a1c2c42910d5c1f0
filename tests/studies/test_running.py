"""Runs: each cell once, failures put down, and the same table after a kill."""

import csv
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from bnn_lightning.cli import UsageError
from bnn_lightning.studies import one_run, rows, running, study
from bnn_lightning.studies.base import Study
from bnn_lightning.studies.running import Runner


def test_a_base_that_is_edited_while_its_study_runs_stops_it(write, tmp_path, monkeypatch):
    path, base = write(cells={"one": {}, "two": {}, "three": {}}), tmp_path / "base.yaml"

    def run(task, *_):
        if task.cell.name == "two":
            base.write_text(base.read_text().replace("batch_size: 32", "batch_size: 16"))
        return rows.head(task) | {"accuracy": 0.5, "caveats": "", "command": task.command}

    monkeypatch.setattr(running, "run_task", run)
    with pytest.raises(UsageError, match=r"base\.yaml has changed while "):
        study([str(path)])
    first = rows.read(Path("results/tiny.csv"))
    assert [row["cell"] for row in first] == ["one", "two"]
    assert study([str(path)]) == 0
    recorded = rows.read(Path("results/tiny.csv"))
    assert [row["cell"] for row in recorded] == ["one", "one", "two", "two", "three"]
    assert len({row["settings"] for row in recorded}) == 2


def test_what_is_run_again_counts_as_left(write, monkeypatch, capsys):
    path = write(cells={"one": {}, "two": {}})
    outcome = {"failed": "no reason"}
    monkeypatch.setattr(running, "run_task", lambda task, *_: rows.head(task) | outcome | {"caveats": ""})
    assert study([str(path)]) == 1
    capsys.readouterr()
    assert study([str(path), "--retry"]) == 1
    assert capsys.readouterr().out.splitlines()[0] == "[1/2] one, seed 0: no reason; 0 s"
    outcome = {"accuracy": 0.5, "seconds": 60}
    assert study([str(path), "--retry"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "[1/2] one, seed 0: 50.00 %; 0 s; 1 left, about 1 min 0 s"
    assert out[1] == "[2/2] two, seed 0: 50.00 %; 0 s"


def test_a_network_that_two_cells_want_at_once_is_trained_once(write, tmp_path, monkeypatch):
    cells = {"one": {}, "two together": {"members": 2}}
    tasks = Study.read(write(cells=cells)).tasks()
    alone = next(task for task in tasks if not task.members)
    joined = next(task for task in tasks if task.members)
    shared = next(task for task in joined.members if task.run_name == alone.run_name)
    trained = []

    def fit(words, log):
        trained.append(words)
        time.sleep(0.3)
        folder = Path("checkpoints") / alone.run_name / "version_0"
        folder.mkdir(parents=True)
        (folder / "last.ckpt").write_text("trained")
        return ""

    monkeypatch.setattr(one_run, "run_bnn", fit)
    monkeypatch.setattr(one_run.Record, "read", lambda path: SimpleNamespace(is_finished=lambda: True))
    runs = []

    def train(task):
        runs.append(one_run._trained(task, tmp_path / "both.log", print))

    threads = [threading.Thread(target=train, args=[task]) for task in (alone, shared)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(trained) == 1
    assert len(runs) == 2
    assert runs[0] == runs[1]


def table_of(path):
    """A CSV file without what time and machine decide."""
    own = ("seconds", "step_ms")
    return [{name: value for name, value in row.items() if name not in own} for row in rows.read(path)]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_study_runs_every_cell_once_and_puts_failures_down(write, capsys):
    cells = {"one": {}, "wrong": {"model.network": "Nope"}, "best": {"model.method": None}}
    path = write(
        cells=cells,
        test={"data.eval_batch_size": 25, "data.ood": "[RenderedLetters]", "data.corruptions": True},
        columns=["auroc/mutual_information/RenderedLetters"],
    )
    assert study([str(path)]) == 1
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("[1/3] one, seed 0: ")
    assert "; 2 left, about " in out[0]
    assert out[1].startswith("[2/3] wrong, seed 0: --model.network does not know Nope")
    by_cell = {row["cell"]: row for row in rows.read(Path("results/tiny.csv"))}
    assert list(by_cell) == ["one", "wrong", "best"]
    first_row = by_cell["one"]
    assert (first_row["epochs"], first_row["num_train"], first_row["parameters"]) == ("1", "160", "533220")
    assert int(first_row["multiply_adds"]) == 784 * 300 + 300 * 100 + 100 * 10
    assert first_row["predicted by"] == "2 weight draws"
    assert "posterior not converged" in first_row["caveats"]
    assert first_row["command"].startswith("bnn fit --config base.yaml --seed_everything 0 --name tiny_one_seed0_")
    (log,) = Path("lightning_logs").glob("tiny_one_seed0_*/version_0/test_mnist_last.json")
    results = json.loads(log.read_text())
    detection = results["ood"]["RenderedLetters"]["mutual_information"]["auroc"]["value"]
    assert float(first_row["auroc/mutual_information/RenderedLetters"]) == detection
    kinds = [kind for name, kind in results["corruptions"].items() if name != "clean"]
    corrupted = [severity["nll"] for kind in kinds for severity in kind.values()]
    assert len(corrupted) == 25
    assert float(first_row["corrupted_nll"]) == pytest.approx(sum(corrupted) / 25)
    assert (int(first_row["passes"]), int(first_row["bytes"])) == (2, 4 * (533220 + 6 * 2))  # six priors
    measured = results["predictions"]
    for prefix, prediction in (("", "samples"), ("one_", "one_sample"), ("mean_", "mean_weights")):
        assert float(first_row[f"{prefix}nll"]) == measured[prediction]["nll"]
    assert by_cell["wrong"]["failed"].startswith("--model.network does not know Nope")
    assert by_cell["best"]["elbo_per_n"] == ""

    # Once more, in a folder that has only the rows: nothing is run.
    written_then = Path("results/tiny.csv").read_bytes()
    for journal in Path("lightning_logs/studies").glob("*.journal*"):
        journal.unlink()
    assert study([str(path)]) == 1
    assert Path("results/tiny.csv").read_bytes() == written_then
    assert not [line for line in capsys.readouterr().out.splitlines() if line.startswith("[")]

    assert study([str(path), "--dry_run"]) == 0
    assert capsys.readouterr().out == "3 of 3 runs have their row, 1 of them failed: --retry runs those again.\n"
    assert study([str(path), "--dry_run", "--retry"]) == 1
    first, counted, last = capsys.readouterr().out.splitlines()
    assert first.startswith("[1] bnn fit --config base.yaml --model.network Nope ")
    assert counted == "2 of 3 runs have their row."
    assert last.startswith("will fail: wrong: --model.network does not know Nope; it can be AlexNet, ")

    # What failed is run again when that is asked for; a cell that was added since, too.
    text = path.read_text().replace("Nope", "LeNet300100").replace("cells:\n", "cells:\n  new: {seeds: [4]}\n")
    path.write_text(text)
    assert study([str(path), "--only", "new"]) == 0
    assert study([str(path), "--retry"]) == 0
    out = [line for line in capsys.readouterr().out.splitlines() if line.startswith("[")]
    assert [line.split(", seed")[0].split("] ")[1] for line in out] == ["new", "wrong"]
    with pytest.raises(UsageError, match=r"^--only X fits none of new, one, wrong, best\.$"):
        Runner(Study.read(path), Path("results"), None, print).run("X")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_an_ensemble_joins_networks_that_another_cell_has_trained(write, capsys):
    path = write(cells={"one": {}, "three": {"members": 3}, "two kinds": {"members": 2, "data.seed": "{seed}"}})
    assert study([str(path)]) == 1
    by_cell = {row["cell"]: row for row in rows.read(Path("results/tiny.csv"))}
    assert sorted(Path("checkpoints").glob("tiny_one_*/version_*"))[1:] == sorted(
        Path("checkpoints").glob("tiny_one_seed[12]_*/version_0")
    )
    (log,) = Path("lightning_logs").glob("tiny_one_seed0_*/version_0/test_mnist_ensemble_of_3_last.json")
    results, row = json.loads(log.read_text()), by_cell["three"]
    assert results["sampling"] == {"draws": "weights", "samples": 3, "members": 3}
    assert float(row["nll"]) == results["predictions"]["samples"]["nll"]
    assert float(row["elbo_per_n"]) == results["training"]["elbo_per_n"] != float(by_cell["one"]["elbo_per_n"])
    metrics = Path("lightning_logs").glob("tiny_one_*/version_0/metrics.csv")
    seconds = [float(next(csv.DictReader(file.read_text().splitlines()))["seconds"]) for file in metrics]
    assert len(seconds) == 3
    assert float(row["seconds"]) == pytest.approx(sum(seconds), abs=0.051)
    assert int(row["parameters"]) == 3 * int(by_cell["one"]["parameters"])
    assert row["command"].startswith("bnn ensemble --ckpt_path checkpoints/tiny_one_seed0_")
    assert "differs from --ckpt_path in --data.seed (0 and 1); only the seed may" in by_cell["two kinds"]["failed"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_an_axis_may_be_called_as_a_column_is_and_a_finished_row_is_never_lost(write, capsys):
    path = write(grid={"data": {"half of it": {"data.train_subset": 100}, "wrong": {"data.train_subset": 10_000}}})
    assert study([str(path)]) == 1
    recorded = rows.read(Path("results/tiny.csv"))
    assert [row["data"] for row in recorded] == ["half of it", "wrong"]
    assert "train_subset must lie within the 200 training images" in recorded[1]["failed"]
    # Somebody else has the row that failed here.
    their_row = recorded[0] | {"data": "wrong", "settings": recorded[1]["settings"]}
    rows.write(Path("results/tiny.csv"), Study.read(path), [recorded[0], their_row])
    capsys.readouterr()
    assert study([str(path)]) == 0
    assert rows.read(Path("results/tiny.csv"))[1]["failed"] == ""
    assert not [line for line in capsys.readouterr().out.splitlines() if line.startswith("[")]


def begin(path, *words, **options):
    """A study in a process of its own, the leader of its group."""
    command = [sys.executable, "-m", "bnn_lightning", "study", str(path), *words]
    return subprocess.Popen(command, start_new_session=True, text=True, **options)


def wait_for_an_epoch(process, cell):
    """Waits until a cell's run has had its first epoch."""
    deadline = time.monotonic() + 120
    while not any(Path().glob(f"lightning_logs/tiny_{cell}_*/version_0/metrics.csv")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_study_that_is_stopped_and_killed_ends_in_the_same_table(write, monkeypatch, capsys):
    cells = {"first": {"model.method": "BBB"}, "second": {"model.method": "LRT"}}
    path = write(cells=cells, set={"trainer.max_epochs": 30})
    assert study([str(path), "--results", "whole"]) == 0
    whole = table_of(Path("whole/tiny.csv"))
    assert len(whole) == 2
    for folder in ("lightning_logs", "checkpoints"):
        Path(folder).rename(f"{folder}_whole")
    process = begin(path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    wait_for_an_epoch(process, "first")
    os.killpg(process.pid, signal.SIGINT)  # as the terminal does for Ctrl-C
    _, err = process.communicate()
    assert process.returncode == 130
    assert err.splitlines()[-1] == "bnn: stopped; the same command goes on."
    assert not Path("results/tiny.csv").exists()
    process = begin(path, stdout=subprocess.DEVNULL)
    wait_for_an_epoch(process, "second")  # what was interrupted waits behind it
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    capsys.readouterr()
    assert study([str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("going")] == [
        f"going on with {name}, seed 0" for name in ("first", "second")
    ]
    assert table_of(Path("results/tiny.csv")) == whole

    # What cannot be read now may be whole: nothing is begun anew in its place.
    (task, _) = Study.read(path).tasks()
    with monkeypatch.context() as patch:
        patch.setattr(torch, "load", lambda *_, **__: os.open("nowhere/file", os.O_RDONLY))
        row = running.run_task(task, Path("logs"), print)
    assert row["failed"].endswith("last.ckpt cannot be read: No such file or directory.")
    assert len(list(Path("checkpoints", task.run_name).iterdir())) == 1

    # A run that outlived its study is waited for, and its table is made of what it has done.
    run, state = one_run._last_run(task)
    assert state == "trained"
    released = []
    with run.locked():
        thread = threading.Thread(target=lambda: released.append(running.run_task(task, Path("logs"), print)))
        thread.start()
        time.sleep(0.5)
        assert not released
    thread.join()
    assert released[0]["nll"] == float(whole[0]["nll"])
