"""A study file with a base of its own, its queue, and runs that only pretend to train."""

import json

import pytest
import yaml

from bnn_lightning.studies import rows, running
from bnn_lightning.studies.queue import Queue

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


@pytest.fixture
def open_queue(tmp_path):
    """Opens the same queue again and again, as other processes would: each call gives one more place to take from."""

    def opened(folder="locks", storage="study.journal"):
        where = storage if "://" in storage else str(tmp_path / storage)
        return Queue("tiny", where, tmp_path / folder)

    return opened


@pytest.fixture
def pretended(monkeypatch):
    """Runs that only say what they would have come to; the words of each, in the order of the runs."""
    words = []

    def run(task, *_):
        words.append(task.fit_arguments)
        if len(words) > 30:
            raise KeyboardInterrupt
        return rows.head(task) | {"accuracy": 0.5, "val_nll": 1 / len(words), "caveats": "", "command": task.command}

    monkeypatch.setattr(running, "run_task", run)
    return words
