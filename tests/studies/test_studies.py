"""Studies: files, the queue, runs that are killed, reports and claims."""

import csv
import json
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from optuna.distributions import FloatDistribution
from scipy import stats

from bnn_lightning.cli import UsageError
from bnn_lightning.reporting import figures
from bnn_lightning.studies import rows, running, study
from bnn_lightning.studies.base import Study
from bnn_lightning.studies.claims import verdict
from bnn_lightning.studies.columns import heading
from bnn_lightning.studies.lines import Line, lines_of, written
from bnn_lightning.studies.queue import Queue
from bnn_lightning.studies.rankings import kendall
from bnn_lightning.studies.report import report, write_report
from bnn_lightning.studies.running import Runner
from tests.helpers import ROOT

STUDIES = sorted((ROOT / "configs" / "studies").glob("*.yaml"))
BASE = {
    "model": {"network": "LeNet300100", "method": "BBB", "val_samples": 1, "test_samples": 2},
    "data": {"class_path": "MNIST", "init_args": {"batch_size": 32}},
    "trainer": {"max_epochs": 1},
}


@pytest.fixture
def write(tmp_path, fake_mnist, in_an_empty_folder):
    """Writes a study file, with a base beside it whose images are random."""

    def of(name="tiny", **settings):
        base = json.loads(json.dumps(BASE))
        base["data"]["init_args"]["root"] = fake_mnist()
        (tmp_path / "base.yaml").write_text(yaml.safe_dump(base))
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump({"title": "Tiny", "base": "base.yaml"} | settings, sort_keys=False))
        return path

    return of


GRID = {
    "method": {"BBB": {"model.method": "BBB"}, "LRT": {"model.method": "LRT", "seeds": [0, 3]}},
    "model.lr": [0.1, 1],
}


# The file


def test_cells_are_the_product_of_the_axes_then_the_others(write):
    found = Study.read(write(grid=GRID, cells={"more": {"model.lr": 5, "seeds": [7]}}, set={"model.lr": 9}, seeds=[1]))
    assert found.axes == ["method", "lr"]
    cells = list(found.all_cells())
    assert [cell.name for cell in cells] == ["BBB, lr 0.1", "BBB, lr 1", "LRT, lr 0.1", "LRT, lr 1", "more"]
    assert [cell.seeds for cell in cells] == [(1,), (1,), (0, 3), (0, 3), (7,)]
    assert cells[1].flags == {"model.lr": 1, "model.method": "BBB"}
    assert cells[4].flags == {"model.lr": 5}


def test_every_cell_has_a_run_before_any_has_two(write):
    tasks = Study.read(write(grid=GRID, seeds=[0, 1])).tasks()
    assert [task.seed for task in tasks] == [0, 0, 0, 0, 1, 1, 3, 3]


def test_the_command_is_what_a_person_would_type(write):
    grid = {"data": {"some": {"data.train_subset": [0, 50], "data.flip": True, "model.method": None}}}
    task = Study.read(write(grid=grid)).tasks()[0]
    assert task.command.startswith(
        "bnn fit --config base.yaml --data.train_subset '[0, 50]' --data.flip true --model.method null "
        "--seed_everything 0 --name tiny_some_seed0_"
    )


def test_settings_are_told_apart_by_all_that_was_asked_for(write, tmp_path):
    def digest(**settings):
        return Study.read(write(**settings)).tasks()[0].settings

    plain = digest(grid=GRID)
    assert digest(grid=GRID, title="Another", about="words") == plain
    others = [digest(grid=GRID, set={"data.flip": True}), digest(grid=GRID, test={"model.test_samples": 3})]
    others.append(digest(grid=GRID, checkpoint="best"))
    path = write(grid=GRID)
    base = tmp_path / "base.yaml"
    base.write_text(base.read_text().replace("batch_size: 32", "batch_size: 33"))
    others.append(Study.read(path).tasks()[0].settings)
    assert len({plain, *others}) == 5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"grid": GRID, "sets": {}}, r"knows no sets; it can have about, base, cells, "),
        ({"base": None, "grid": GRID}, r"base must be text, got None\."),
        ({"base": "other.yaml", "grid": GRID}, r"base must be a config file, got other\.yaml\."),
        ({}, r"there must be a grid, cells or both, or else a search\."),
        ({"grid": GRID, "search": {"model.lr": [1]}}, r"there must be a grid, cells or both, or else a search\."),
        ({"search": {"model.lr": [1]}}, r"trials must be 1 or more for a search, got 0\."),
        ({"grid": [1]}, r"grid must be settings by name, got \[1\]\."),
        ({"grid": {"data": {"MNIST": "MNIST"}}}, r"data: MNIST must be flags with their values, got 'MNIST'\."),
        ({"grid": {"model.lr": 1}}, r"grid: model\.lr must be a list of values, or names with flags, got 1\."),
        ({"grid": GRID, "seeds": 3}, r"seeds must be a list, got 3\."),
        (
            {"cells": {"a": {"seeds": ["x"]}}},
            r"cells: a: seeds must be a list of different whole numbers such as .* got \['x'\]",
        ),
        ({"grid": GRID, "seeds": [1, 1]}, r"seeds must be a list of different whole numbers .* got \[1, 1\]"),
        ({"search": {"model.lr": ["1", 1]}, "trials": 1}, r"search: model\.lr has 1 twice\."),
        ({"grid": {"seed": {"a": {}}}}, r"an axis must not be called seed, which is a column of every row\."),
        ({"grid": GRID, "columns": ["speed"]}, r"columns must be among accuracy, one_accuracy, .* got speed\."),
        ({"grid": GRID, "columns": [1]}, r"a column must be text, got 1\."),
        ({"grid": {1: [2]}}, r"an axis of the grid must be text, got 1\."),
        ({"grid": GRID, "score": ["nll"]}, r"score must be text"),
        ({"grid": GRID, "rankings": [["nll"]]}, r"rankings must be one of .* got \['nll'\]\."),
        ({"grid": GRID, "rankings": ["sparsity_by_layer"]}, r"rankings must be one of .* got sparsity_by_layer\."),
        ({"grid": GRID, "score": "median_nll"}, r"score must be one of accuracy, .* got median_nll\."),
        ({"grid": GRID, "published": {"accuracy": {"BBB, lr 1": "x"}}}, r"BBB, lr 1 must be a number, got 'x'\."),
        ({"grid": GRID, "claims": ["a"]}, r"a claim must have higher, says, than, perhaps .* got 'a'\."),
        ({"grid": GRID, "claims": [{"says": "", "higher": "BBB, lr 1", "than": {"lr": "lr 1"}}]}, r"must compare two"),
        (
            {"search": {"model.lr": {"low": "1e-4", "high": 1}}, "trials": 1},
            r"YAML reads 1e-4 as text, write 0\.0001\.",
        ),
        ({"search": {"model.lr": {"low": 0, "high": 1, "log": True}}, "trials": 1}, r"low above 0 for log, got 0\."),
        ({"grid": GRID, "checkpoint": "first"}, r"checkpoint must be last or best, got first\."),
        ({"grid": GRID, "cells": {"BBB, lr 1": {}}}, r"there are two cells called BBB, lr 1\."),
        ({"grid": GRID, "published": {"accuracy": {"BBB": 1}}}, r"published names BBB, which is no cell\."),
        (
            {"grid": GRID, "claims": [{"says": "", "higher": {"method": "X"}, "than": {"method": "LRT"}}]},
            r"is about {'method'",
        ),
    ],
)
def test_a_file_that_is_none_is_refused_in_a_sentence(write, settings, message):
    with pytest.raises(UsageError, match=rf"^study .*tiny\.yaml: .*{message}"):
        Study.read(write(**settings))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_no_cell_of_our_studies_would_be_refused(path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert study([str(path), "--dry_run"]) == 0
    assert "bnn fit --config " in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_a_base_that_is_edited_while_its_study_runs_stops_it(write, tmp_path, monkeypatch, capsys):
    path, base = write(cells={"one": {}, "two": {}, "three": {}}), tmp_path / "base.yaml"

    def run(task, *_):
        if task.cell.name == "two":
            base.write_text(base.read_text().replace("batch_size: 32", "batch_size: 16"))
        return rows.head(task) | {"accuracy": 0.5, "marks": "", "command": task.command}

    monkeypatch.setattr(running, "run_task", run)
    assert study([str(path)]) == 2
    assert "base.yaml has changed while " in capsys.readouterr().err
    first = rows.read(Path("results/tiny.csv"))
    assert [row["cell"] for row in first] == ["one", "two"]
    assert study([str(path)]) == 0
    found = rows.read(Path("results/tiny.csv"))
    assert [row["cell"] for row in found] == ["one", "one", "two", "two", "three"]
    assert len({row["settings"] for row in found}) == 2


def test_what_is_run_again_counts_as_left(write, monkeypatch, capsys):
    path = write(cells={"one": {}, "two": {}})
    outcome = {"failed": "no reason"}
    monkeypatch.setattr(running, "run_task", lambda task, *_: rows.head(task) | outcome | {"marks": ""})
    assert study([str(path)]) == 1
    capsys.readouterr()
    assert study([str(path), "--retry"]) == 1
    assert capsys.readouterr().out.splitlines()[0] == "[1/2] one, seed 0: no reason; 0 s"
    outcome = {"accuracy": 0.5, "seconds": 60}
    assert study([str(path), "--retry"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "[1/2] one, seed 0: 50.00 %; 0 s; 1 left, about 1 min 0 s"
    assert out[1] == "[2/2] two, seed 0: 50.00 %; 0 s"


def test_files_that_cannot_be_read(tmp_path, capsys):
    assert study([str(tmp_path / "none.yaml")]) == 2
    assert capsys.readouterr().err.endswith("none.yaml cannot be read: No such file or directory.\n")
    (tmp_path / "list.yaml").write_text("[1, 2]")
    assert study([str(tmp_path / "list.yaml")]) == 2
    assert "list.yaml: it must be settings by name, got [1, 2]." in capsys.readouterr().err
    (tmp_path / "base.yaml").write_text("a: [1")
    (tmp_path / "based.yaml").write_text("title: T\nbase: base.yaml\ncells: {a: {}}")
    assert study([str(tmp_path / "based.yaml"), "--dry_run"]) == 2
    assert "base.yaml cannot be read: while parsing" in capsys.readouterr().err
    assert study([]) == 2
    assert "bnn study --help" in capsys.readouterr().err


def test_a_dry_run_prints_the_commands_and_leaves_nothing(write, capsys, tmp_path):
    path = write(grid=GRID, not_run={"CIFAR-100": "no data"})
    before = sorted(tmp_path.iterdir())
    assert study([str(path), "--dry_run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 7
    assert lines[5].startswith("[6] bnn fit --config base.yaml --model.method LRT --model.lr 1 --seed_everything 3")
    assert lines[6] == "not run: CIFAR-100: no data"
    assert study([str(path), "--dry_run", "--only", "BBB*"]) == 0
    assert capsys.readouterr().out.count("bnn fit") == 2
    assert sorted(tmp_path.iterdir()) == before


# The queue


@pytest.fixture
def queue(tmp_path):
    def open_one(folder="locks", storage="study.journal"):
        where = storage if "://" in storage else str(tmp_path / storage)
        return Queue("tiny", where, tmp_path / folder)

    return open_one


def take_all(one, wanted="abcd"):
    found = []
    while (trial := one.take(wanted)) is not None:
        found.append(trial)
    return found


def keys_of(trials):
    return [trial.user_attrs["key"] for trial in trials]


@pytest.mark.parametrize("kind", ["file", "database"])
def test_two_processes_take_everything_once(queue, tmp_path, kind):
    storage = "study.journal" if kind == "file" else f"sqlite:///{tmp_path}/study.db"
    one, two = queue(storage=storage), queue(storage=storage)
    with one.at_work(), two.at_work():
        one.fill("abcd", {}, retry=False, retake=False)
        two.fill("abcd", {}, retry=False, retake=False)
        assert keys_of([one.take("abcd"), two.take("bd"), two.take("bd"), one.take("abcd")]) == list("abdc")
        assert one.take("abcd") is None
        assert two.take("abcd") is None


def test_processes_that_take_at_the_same_time_share_a_file(tmp_path):
    code = f"""
import sys, time
from pathlib import Path
from bnn_lightning.studies.queue import Queue
queue = Queue("tiny", {str(tmp_path / "study.journal")!r}, Path({str(tmp_path / "locks")!r}))
keys = [str(number) for number in range(40)]
open(sys.argv[1], "w").close()
while len(list(Path({str(tmp_path)!r}).glob("ready*"))) < 2: time.sleep(0.01)
with queue.at_work():
    queue.fill(keys, {{}}, retry=False, retake=False)
    while (trial := queue.take(keys)) is not None:
        print(trial.user_attrs["key"], flush=True)
        time.sleep(0.05)  # a run, which leaves time for the other process
        queue.finish(trial, {{"val_nll": 1}})
"""
    words = [[sys.executable, "-c", code, str(tmp_path / f"ready{number}")] for number in range(2)]
    processes = [subprocess.Popen(one, stdout=subprocess.PIPE, text=True) for one in words]
    taken = [process.communicate()[0].split() for process in processes]
    assert sorted(map(int, taken[0] + taken[1])) == list(range(40))
    assert all(taken)


def test_what_was_put_in_twice_is_taken_once(queue):
    one = queue()
    with one.at_work():
        for key in "abab":  # as two machines would that fill at the same moment
            one.study.enqueue_trial({}, user_attrs={"key": key})
        assert keys_of(take_all(one)) == ["a", "b"]


def test_what_a_dead_process_had_is_run_again_and_what_a_living_one_has_is_not(queue):
    dead, living, new = queue(), queue(), queue()
    with living.at_work():
        living.fill("abc", {}, retry=False, retake=False)
        with dead.at_work():
            lost = dead.take("abc")
            (dead._folder / dead._lock).unlink()  # as it is where the folder was cleaned; the lock is gone either way
        had = living.take("abc")
        with new.at_work():
            new.fill("abc", {}, retry=False, retake=False)
            assert sorted(keys_of(take_all(new))) == ["a", "c"]
    assert keys_of([lost, had]) == ["a", "b"]


def test_another_places_runs_are_taken_only_when_asked(queue):
    far, near = queue("far"), queue("near")  # another machine, or another folder of this one
    with far.at_work(), near.at_work():
        far.fill("ab", {}, retry=False, retake=False)
        theirs = far.take("ab")
        near.fill("ab", {}, retry=False, retake=False)
        (b,) = take_all(near)
        assert b.user_attrs["key"] == "b"
        assert len(near.hosts()) == 2
        near.finish(b, {"val_nll": 0.5})
        near.fill("ab", {}, retry=False, retake=True)
        (a,) = take_all(near)
        assert a.user_attrs["key"] == "a"
        # They were alive after all: what they did is not lost.
        far.finish(theirs, {"val_nll": 0.25})
        assert near.rows() == {"a": {"val_nll": 0.25}, "b": {"val_nll": 0.5}}


def test_failed_runs_wait_for_a_retry_and_rows_of_a_file_count_as_done(queue):
    one = queue()
    done = {"a": {"val_nll": "0.25", "failed": ""}, "b": {"failed": "no such network"}}
    with one.at_work():
        one.fill("abc", done, retry=False, retake=False)
        (trial,) = take_all(one)
        assert trial.user_attrs["key"] == "c"
        one.finish(trial, {"failed": "killed"})
        assert [other.value for other in one.study.trials if other.value is not None] == [0.25]
        one.fill("abc", done | one.rows(), retry=False, retake=False)
        assert take_all(one) == []
        one.fill("abc", done | one.rows(), retry=True, retake=False)
        again = take_all(one)
        assert keys_of(again) == ["b", "c"]
        one.finish(again[1], {"val_nll": 0.5})
        assert one.rows()["c"] == {"val_nll": 0.5}


def test_a_storage_that_is_none_is_refused_in_a_sentence(tmp_path):
    with pytest.raises(UsageError, match=r"^--storage nothing://x cannot be used: "):
        Queue("tiny", "nothing://x", tmp_path)


# Running


def table_of(path):
    """A CSV file without what time and machine decide."""
    own = ("seconds", "step_ms")
    return [{name: value for name, value in row.items() if name not in own} for row in rows.read(path)]


@pytest.mark.filterwarnings("ignore")
def test_a_study_runs_every_cell_once_and_puts_failures_down(write, capsys):
    cells = {"one": {}, "wrong": {"model.network": "Nope"}, "best": {"model.method": None}}
    path = write(cells=cells, test={"data.eval_batch_size": 25})
    assert study([str(path)]) == 1
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("[1/3] one, seed 0: ")
    assert "; 2 left, about " in out[0]
    assert out[1].startswith("[2/3] wrong, seed 0: --model.network does not know Nope")
    found = {row["cell"]: row for row in rows.read(Path("results/tiny.csv"))}
    assert list(found) == ["one", "wrong", "best"]
    one = found["one"]
    assert (one["epochs"], one["num_train"], one["parameters"]) == ("1", "160", "533220")
    assert int(one["multiply_adds"]) == 784 * 300 + 300 * 100 + 100 * 10
    assert one["predicted by"] == "2 weight draws"
    assert "posterior not converged" in one["marks"]
    assert one["command"].startswith("bnn fit --config base.yaml --seed_everything 0 --name tiny_one_seed0_")
    (log,) = Path("lightning_logs").glob("tiny_one_seed0_*/version_0/test_mnist_last.json")
    measured = json.loads(log.read_text())["predictions"]
    for start, way in (("", "2 weight draws"), ("one_", "1 weight draw"), ("mean_", "mean weights")):
        assert float(one[f"{start}nll"]) == measured[way]["nll"]
    assert found["wrong"]["failed"].startswith("--model.network does not know Nope")
    assert found["best"]["elbo_per_n"] == ""

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


@pytest.mark.filterwarnings("ignore")
def test_an_axis_may_be_called_as_a_column_is_and_a_finished_row_is_never_lost(write, capsys):
    path = write(grid={"data": {"half of it": {"data.train_subset": 100}, "wrong": {"data.train_subset": 10_000}}})
    assert study([str(path)]) == 1
    found = rows.read(Path("results/tiny.csv"))
    assert [row["data"] for row in found] == ["half of it", "wrong"]
    assert "train_subset must lie within the 200 training images" in found[1]["failed"]
    # Somebody else has the row that failed here.
    theirs = found[0] | {"data": "wrong", "settings": found[1]["settings"]}
    rows.write(Path("results/tiny.csv"), Study.read(path), [found[0], theirs])
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


@pytest.mark.filterwarnings("ignore")
def test_a_study_that_is_stopped_and_killed_ends_in_the_same_table(write, capsys):
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
    told = capsys.readouterr().out.splitlines()
    assert [line for line in told if line.startswith("going")] == [
        f"going on with {name}, seed 0" for name in ("first", "second")
    ]
    assert table_of(Path("results/tiny.csv")) == whole

    # A run that outlived its study is waited for, and its table is made of what it has done.
    (task, _) = Study.read(path).tasks()
    run, state = running._last_run(task)
    assert state == "trained"
    released = []
    with run.locked():
        thread = threading.Thread(target=lambda: released.append(running.run_task(task, Path("logs"), print)))
        thread.start()
        time.sleep(0.5)
        assert not released
    thread.join()
    assert released[0]["nll"] == float(whole[0]["nll"])


@pytest.mark.filterwarnings("ignore")
def test_a_search_draws_cells_and_reports_the_best(write, capsys):
    space = {"model.lr": {"low": 0.001, "high": 0.1, "log": True}, "model.method": ["BBB", "LRT"]}
    path = write(search=space, trials=3)
    assert study([str(path)]) == 0
    found = rows.read(Path("results/tiny.csv"))
    assert len(found) == 3
    for row in found:
        assert 0.001 <= float(row["model.lr"]) <= 0.1
        assert row["model.method"] in ("BBB", "LRT")
        assert f"--model.lr {row['model.lr']} --model.method {row['model.method']}" in row["command"]
    assert study([str(path)]) == 0  # all trials are there
    assert rows.read(Path("results/tiny.csv")) == found
    # More are asked for, where only the rows are left: they are not drawn again.
    for journal in Path("lightning_logs/studies").glob("*.journal*"):
        journal.unlink()
    path.write_text(path.read_text().replace("trials: 3", "trials: 4"))
    assert study([str(path)]) == 0
    more = rows.read(Path("results/tiny.csv"))
    assert len({row["model.lr"] for row in more}) == 4
    capsys.readouterr()
    assert study([str(path), "--report"]) == 0
    lines = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| 0.")]
    best = sorted(more, key=lambda row: float(row["val_nll"]))
    assert [line[0].removeprefix("| ") for line in lines] == [row["model.lr"] for row in best]


def test_a_search_goes_on_with_what_it_was_at(queue):
    spaces = {"model.lr": FloatDistribution(0.001, 0.1)}
    dead, living, new = queue(), queue(), queue()
    with dead.at_work():
        lost = dead.ask(spaces)
    with living.at_work(), new.at_work():
        living.take_up_lost(retake=False)
        new.take_up_lost(retake=False)
        assert living.ask(spaces).params == lost.params
        assert new.ask(spaces).params != lost.params


@pytest.fixture
def pretended(monkeypatch):
    """Runs that only say what they would have come to; the words of each, in the order of the runs."""
    words = []

    def run(task, *_):
        words.append(task.fit)
        if len(words) > 30:
            raise KeyboardInterrupt
        return rows.head(task) | {"accuracy": 0.5, "val_nll": 1 / len(words), "marks": "", "command": task.command}

    monkeypatch.setattr(running, "run_task", run)
    return words


def test_a_search_has_as_many_trials_as_it_is_to_have(write, pretended, capsys):
    # Values that CSV and YAML have other words for than Python: null, a small number, on.
    space = {"model.lr_schedule": [None, "LinearDecay"], "model.lr": [0.00001, 0.001], "model.method": ["on", "off"]}
    path = write(search=space, trials=5)
    assert study([str(path)]) == 0
    assert len(pretended) == 5
    assert len({" ".join(words) for words in pretended}) == 5
    assert capsys.readouterr().out.splitlines()[4].startswith("[5/5] ")
    # As many as there are, where more are asked for: none is run twice, and there is an end.
    path.write_text(path.read_text().replace("trials: 5", "trials: 20"))
    assert study([str(path)]) == 0
    assert len(pretended) == len({" ".join(words) for words in pretended}) == 8
    assert capsys.readouterr().out.splitlines()[2].startswith("[8/8] ")
    assert study([str(path), "--report"]) == 0
    text = capsys.readouterr().out
    assert "The best 8 of 8 trials" in text
    assert "| null | 1e-05 | on | " in text
    # Another dimension makes another search, which leaves the rows of this one alone.
    path.write_text(path.read_text().replace("search:\n", "search:\n  model.rho_lr_factor: [1, 10]\n"))
    assert study([str(path), "--report"]) == 0
    assert "of 0 trials" in capsys.readouterr().out
    path.write_text(path.read_text().replace("trials: 20", "trials: 3"))
    assert study([str(path)]) == 0
    assert len(rows.read(Path("results/tiny.csv"))) == 11


def test_a_search_whose_space_changes_takes_its_rows_over(write, pretended):
    path = write(search={"model.lr": {"low": 0.01, "high": 1}, "model.method": ["BBB", "LRT"]}, trials=4)
    assert study([str(path)]) == 0
    found = rows.read(Path("results/tiny.csv"))
    middle = sorted(float(row["model.lr"]) for row in found)[2]
    text = path.read_text().replace("low: 0.01", f"low: {middle}").replace("- LRT", "- LRT\n  - Flipout")
    path.write_text(text)
    assert study([str(path)]) == 0
    assert len(pretended) == 6  # the two below the new range count no longer
    assert len(rows.read(Path("results/tiny.csv"))) == 6


def test_what_a_living_machine_begins_is_not_retaken(write, queue):
    spaces = {"model.lr": FloatDistribution(0.001, 0.1)}
    here, there = queue("here"), queue("there")
    with here.at_work(), there.at_work():
        before = there.ask(spaces)
        here.take_up_lost(retake=True)
        later = there.ask(spaces)  # what was retaken, or another
        here.take_up_lost(retake=False)
        assert here.hosts() == there.hosts() != []
        assert later.number != before.number


def test_a_search_that_was_stopped_in_its_last_trial_goes_on(write, pretended, capsys):
    path = write(search={"model.lr": {"low": 0.001, "high": 0.1}}, trials=1)
    pretended.extend([["an earlier run"]] * 30)  # so that the next is stopped
    assert study([str(path)]) == 130
    (stopped,) = pretended[30:]
    pretended.clear()
    assert study([str(path)]) == 0
    assert pretended == [stopped]
    assert "still running" not in capsys.readouterr().out


def test_a_search_tries_again_what_failed(write, pretended, monkeypatch, capsys):
    path = write(search={"model.lr": {"low": 0.001, "high": 0.1}}, trials=2)
    with monkeypatch.context() as patch:
        patch.setattr(running, "run_task", lambda task, *_: rows.head(task) | {"failed": "no reason", "marks": ""})
        assert study([str(path)]) == 1
    assert study([str(path)]) == 1
    assert pretended == []
    assert study([str(path), "--retry"]) == 0
    assert len(pretended) == 2
    assert [row.get("failed", "") for row in rows.read(Path("results/tiny.csv"))] == ["", ""]


@pytest.mark.parametrize("axis", ["data.seed", "model.settings"])
def test_an_axis_may_be_called_as_a_column_is(write, pretended, axis):
    path = write(grid={axis: [3, 4], "data.x.p": [1], "model.p": [2]})
    assert Study.read(path).axes == [axis, "data.x.p", "model.p"]
    assert study([str(path)]) == 0
    assert study([str(path)]) == 0
    assert len(pretended) == 2
    found = rows.read(Path("results/tiny.csv"))
    assert [(row[axis], row["seed"]) for row in found] == [(f"{axis} 3", "0"), (f"{axis} 4", "0")]


# The report


def row_of(one, name, seed, **values):
    """A row as a run of that cell would have left it."""
    cell = next(cell for cell in one.all_cells() if cell.name == name)
    head = rows.head(one.task(cell, seed))
    return head | {"marks": "", "versions": "v", "machine": "m", "command": "c", "seconds": "60"} | values


REPORTED = {
    "cells": {"a": {"model.lr": 1}, "b": {"model.lr": 2}, "c": {"model.lr": 3}, "d": {"model.lr": 4}},
    "seeds": [0, 1, 2],
    "source": "a paper",
    "columns": ["elbo_per_n", "median_accuracy", "range_accuracy", "sparsity"],
    "published": {"accuracy": {"a": 97.5, "b": 98, "d": 99}},
    "rankings": ["accuracy", "elbo_per_n", "nll"],
    "claims": [
        {"says": "a beats b.", "higher": "a", "than": "b"},
        {"says": "b beats a.", "higher": "b", "than": "a"},
        {"says": "c beats d.", "higher": "c", "than": "d"},
    ],
}


@pytest.fixture
def reported(write, tmp_path):
    one = Study.read(write(**REPORTED))
    found = [
        row_of(one, "a", seed, accuracy=value, elbo_per_n=-3, nll=0.2) for seed, value in enumerate((0.97, 0.98, 0.985))
    ]
    found += [row_of(one, "b", seed, accuracy=value, nll=0.1) for seed, value in enumerate((0.91, 0.93, 0.92))]
    found[0]["marks"] = "tempered, posterior not converged"
    found.append(row_of(one, "c", 0, accuracy="", failed="loss is not finite"))
    found.append(row_of(one, "d", 0, accuracy=0.1) | {"settings": "of before"})
    rows.write(tmp_path / "results" / "tiny.csv", one, found)
    return one


def test_the_table_has_means_spreads_and_the_published_figures(reported, tmp_path):
    text, _ = report(reported, tmp_path / "results")
    table, ranked = text.split("Places of the cells, 1 for the best:\n\n")
    lines = {line.split(" | ")[0].removeprefix("| "): line.split(" | ") for line in table.splitlines() if "|" in line}
    accuracies = [97.0, 98.0, 98.5]
    mean, deviation = statistics.mean(accuracies), statistics.stdev(accuracies)
    assert lines["cell"][:6] == ["| cell", "seeds", "accuracy, %", "published", "difference", "elbo/N"]
    assert lines["a"][1:6] == ["3", f"{mean:.2f} ± {deviation:.2f}", "97.5", f"{mean - 97.5:+.2f}", "-3.000"]
    assert lines["a"][6:8] == ["98.00", "97.00 to 98.50"]
    assert lines["a"][8] == "tempered, posterior not converged |"
    places = ranked.splitlines()
    assert places[0] == "| cell | published accuracy, % | accuracy, % | elbo/N | NLL |"
    assert places[2:5] == [
        "| b | 1 | 2 |  | 1 |",  # b has no elbo/N, and the lower NLL is the better one
        "| a | 2 | 1 | 1 | 2 |",
        "| Kendall's tau with the published accuracy, % |  | -1.00 |  | +1.00 |",
    ]
    assert lines["c"][1] == ""
    assert "1 failed: loss is not finite; 2 of 3 seeds not run yet" in lines["c"][-1]
    assert lines["d"][3] == "99"
    assert "not run yet" in lines["d"][-1]
    assert "sparsity" not in text  # a column that nothing has
    assert "1 rows of other settings left out" in text
    assert "6 runs, 6 minutes of training, v, m" in text
    assert "Published: a paper." in text


def test_a_deterministic_network_is_compared_by_its_weights(write):
    claims = [{"says": "a beats b.", "higher": "a", "than": "b", "column": "mean_accuracy"}]
    one = Study.read(write(cells=REPORTED["cells"], claims=claims, score="mean_accuracy"))
    found = [
        row_of(one, "a", 0, accuracy=0.9) | {"predicted by": "deterministic"},
        row_of(one, "b", 0, accuracy=0.7, mean_accuracy=0.6) | {"predicted by": "25 weight draws"},
    ]
    lines = lines_of(one, found)
    assert [line.values("mean_accuracy") for line in lines] == [[0.9], [0.6], [], []]
    assert [line.values("one_accuracy") for line in lines] == [[0.9], [], [], []]
    assert "+30.00" in verdict(one, claims[0], lines)


def test_claims_are_settled_by_paired_differences(reported, tmp_path):
    text, lines = report(reported, tmp_path / "results")
    told = [line for line in text.splitlines() if line.startswith("- ")]
    a, b = (97.0, 98.0, 98.5), (91.0, 93.0, 92.0)
    interval = stats.ttest_rel(a, b).confidence_interval(0.95)
    mean = statistics.mean(x - y for x, y in zip(a, b, strict=True))
    assert told[0] == f"- a beats b. **Confirmed**: a - b, accuracy, %: {mean:+.2f} ± {interval.high - mean:.2f} " + (
        "(95 %, 3 pairs)."
    )
    assert told[1].startswith("- b beats a. **Contradicted**: ")
    assert told[2] == "- c beats d. Not run yet."
    others = [replace(line, found=[row | {"seed": "7"} for row in line.found]) for line in lines[1:]]
    told = verdict(reported, {"says": "a beats b.", "higher": "a", "than": "b"}, [lines[0], *others])
    assert told == "a beats b. No two runs of a seed to compare."
    near = {"says": "On a par.", "higher": "a", "than": "b"}
    assert "**Contradicted**" in verdict(reported, near | {"within": 1}, lines)
    assert "**Confirmed**" in verdict(reported, near | {"within": 20}, lines)
    assert "**Not settled**" in verdict(reported, near | {"within": mean}, lines)


def test_groups_are_compared_by_what_else_tells_their_cells_apart(write):
    one = Study.read(write(grid=GRID))
    values = {"BBB, lr 0.1": 0.5, "BBB, lr 1": 0.7, "LRT, lr 0.1": 0.6, "LRT, lr 1": 0.9}
    found = [row_of(one, name, 0, accuracy=value) for name, value in values.items()]
    claim = {"says": "LRT.", "higher": {"method": "LRT"}, "than": {"method": "BBB"}}
    told = verdict(one, claim, lines_of(one, found))
    assert "LRT - BBB, accuracy, %: +15.00 ± 63.53 (95 %, 2 pairs)" in told  # 12.706 * sqrt(50) / sqrt(2)
    single = verdict(one, {"says": "", "higher": "LRT, lr 1", "than": "BBB, lr 1"}, lines_of(one, found))
    half = 100 * stats.norm.ppf(0.975) * ((0.9 * 0.1 + 0.7 * 0.3) / 10_000) ** 0.5
    assert f"+20.00 ± {half:.2f} (one pair)" in single
    fewer = [row | {"test_images": "100"} for row in found]
    single = verdict(one, {"says": "", "higher": "LRT, lr 1", "than": "BBB, lr 1"}, lines_of(one, fewer))
    assert f"+20.00 ± {10 * half:.2f} (one pair)" in single
    # Of one pair of anything else nothing can be said, but for what all runs have alike.
    for row in found:
        row |= {"nll": 0.5 - 0.1 * row["accuracy"], "parameters": 10 * row["accuracy"]}
    two = {"says": "", "higher": "LRT, lr 1", "than": "BBB, lr 1"}
    assert "**Not settled**" in verdict(one, two | {"column": "nll"}, lines_of(one, found))
    assert "**Confirmed**" in verdict(one, two | {"column": "parameters"}, lines_of(one, found))


def test_kendall_is_scipys():
    numbers = torch.randn(2, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64).tolist()
    some, others = ({str(place): value for place, value in enumerate(row)} for row in numbers)
    assert kendall(some, others | {"more": 1.0}) == pytest.approx(stats.kendalltau(*numbers).statistic)
    tied = kendall({"a": 1, "b": 1, "c": 2}, {"a": 1, "b": 2, "c": 3})
    assert tied == pytest.approx(stats.kendalltau([1, 1, 2], [1, 2, 3]).statistic)


def test_columns_are_known(reported):
    assert heading("range_accuracy")[0] == "accuracy, %: lowest to highest"
    line = Line(next(reported.all_cells()), [{"sparsity_by_layer": "1-2"}, {"sparsity_by_layer": "3-4"}], "")
    assert written(line, "sparsity_by_layer") == "1-2; 3-4"


def test_means_and_figure_are_written_beside_the_rows(reported, tmp_path):
    text = write_report(reported, tmp_path / "results")
    (a, b, *_) = csv.DictReader((tmp_path / "results" / "tiny_means.csv").read_text().splitlines())
    assert float(a["accuracy mean"]) == statistics.mean((0.97, 0.98, 0.985))
    assert float(b["accuracy stdev"]) == statistics.stdev((0.91, 0.93, 0.92))
    assert (tmp_path / "results" / "tiny.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "results" / "tiny.md").read_text() in text


def test_the_figure_has_accuracy_beside_elbo_and_says_what_has_not_converged(reported, tmp_path, monkeypatch):
    seen = {}

    def compare(path, names, groups, panels, title):
        seen.update(names=names, groups=groups, panels=panels)

    monkeypatch.setattr(figures, "compare", compare)
    write_report(reported, tmp_path / "results")
    accuracy, elbo = seen["panels"]
    assert (seen["names"], seen["groups"]) == (["a", "b"], ["a", "b"])
    assert [[dot.converged for dot in dots] for dots in accuracy.dots] == [[False, True, True], [True, True, True]]
    assert [[dot.value for dot in dots] for dots in elbo.dots] == [[-3, -3, -3], []]
    assert [dot.value for dot in accuracy.dots[1]] == pytest.approx([91, 93, 92])
    assert (accuracy.label, accuracy.published, elbo.published) == ("accuracy, %", {0: 97.5, 1: 98}, {})
