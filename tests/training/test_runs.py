"""Folders of runs: one for each, reported before training when they cannot be had, whole when the disk is full."""

import resource
import shutil
from pathlib import Path

import pytest

from bnn_lightning.checkpoints.record import read_checkpoint
from bnn_lightning.cli import main
from bnn_lightning.files import UnwritableError, require_space
from bnn_lightning.training.runs import Run
from tests.helpers import LENET, ON_THE_COMMAND_LINE, SMALL, run_together

TWO_EPOCHS = [*SMALL, "--trainer.max_epochs", "2"]
LAST = "checkpoints/lenet_lrt_mnist5k/version_0/last.ckpt"
pytestmark = ON_THE_COMMAND_LINE


def test_a_folder_that_cannot_be_written_is_reported_before_training(capsys):
    Path("file").write_text("in the way")
    folder = "file/lightning_logs/lenet_lrt_mnist5k/version_0"
    for root, reason in (
        ("file", f"{folder} cannot be made: Not a directory."),
        ("/proc", "--trainer.default_root_dir /proc has 0.0 MB"),
    ):
        assert main(["fit", "--config", LENET, *TWO_EPOCHS, "--trainer.default_root_dir", root]) == 2
        out, err = capsys.readouterr()
        assert err.startswith(f"bnn: error: {reason}")
        assert out == ""
    Path("lightning_logs").mkdir()
    Path("lightning_logs/lenet_lrt_mnist5k").write_text("in the way")
    assert main(["fit", "--config", LENET, *TWO_EPOCHS]) == 2
    assert "bnn: error: lightning_logs/lenet_lrt_mnist5k" in capsys.readouterr().err


def test_too_little_room_is_reported_before_training(capsys, monkeypatch):
    usage = shutil._ntuple_diskusage(10**9, 10**9 - 2_000_000, 2_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    assert main(["fit", "--config", LENET, *TWO_EPOCHS]) == 2
    # Three files of 123,412 parameters, each with two moments, at 4 bytes.
    assert capsys.readouterr().err == (
        "bnn: error: --trainer.default_root_dir . has 2.0 MB free, and 4.4 MB are needed.\n"
    )
    assert list(Path().iterdir()) == []
    require_space(Path("not/yet/there"), 2_000_000)
    with pytest.raises(UnwritableError):
        require_space(Path("not/yet/there"), 2_000_001)


def test_a_disk_that_fills_up_leaves_the_last_checkpoint_whole(capsys):
    # The limit on the size of files is the operating system's own; only what cannot be written differs.
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, before[1]))  # room for weights, not for Adam's moments
        assert main(["fit", "--config", LENET, *TWO_EPOCHS]) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    error = f"{LAST} cannot be written: File too large. Go on with: bnn fit --ckpt_path {LAST}"
    assert capsys.readouterr().err == f"bnn: error: {error}\n"
    assert [path.name for path in Path(LAST).parent.iterdir()] == ["last.ckpt"]
    assert read_checkpoint(LAST)["global_step"] == 0
    assert main(["fit", "--ckpt_path", LAST]) == 0
    assert read_checkpoint(LAST)["global_step"] == 4


def test_runs_that_start_at_once_have_folders_of_their_own():
    code = """
from pathlib import Path
from bnn_lightning.training.runs import Run

for _ in range(20):
    print(Run.reserve(Path(), "run").version)
"""
    versions = [int(line) for out in run_together(code, 4) for line in out.split()]
    assert sorted(versions) == list(range(80))
    assert Run.reserve(Path(), "run").version == 80


def test_folders_are_discarded_where_nothing_is_in_them_and_they_were_made_for_this_run():
    first, second = (Run.reserve(Path(), "run") for _ in range(2))
    (first.logs / "metrics.csv").write_text("epoch\n")
    for name in (".lock", "events.out.tfevents.1", "hparams.yaml"):
        (second.logs / name).touch()
    Run(Path(), "run", 1).discard()  # somebody else's
    first.discard()
    assert first.logs.is_dir()
    assert second.logs.is_dir()
    second.discard()
    assert sorted(path.name for path in Path("lightning_logs/run").iterdir()) == ["version_0"]
    (first.logs / "metrics.csv").unlink()
    first.discard()
    assert list(Path().iterdir()) == []


@pytest.mark.slow
def test_the_same_config_started_twice_at_once_has_two_folders():
    words = ["fit", "--config", LENET, *SMALL, "--trainer.max_epochs", "1"]
    outs = run_together(f"from bnn_lightning.cli import main\n\nassert main({words}) == 0", 2)
    for version, other in ((0, 1), (1, 0)):
        logs, checkpoints = (
            Path(tree, "lenet_lrt_mnist5k", f"version_{version}") for tree in ("lightning_logs", "checkpoints")
        )
        assert {path.name for path in checkpoints.iterdir()} == {"best.ckpt", "last.ckpt"}
        assert len((logs / "metrics.csv").read_text().splitlines()) == 2
        assert len(list(logs.glob("events.*"))) >= 1
        naming_it = [out for out in outs if f"version_{version}" in out]
        assert len(naming_it) == 1
        assert f"version_{other}" not in naming_it[0]
