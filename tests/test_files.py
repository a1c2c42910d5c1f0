"""Files are whole or not there; processes at the same work keep out of each other's way; disks may be full."""

import errno
import os
import pickle
import resource
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure

from bnn_lightning.cli import main
from bnn_lightning.data.downloads import fetch
from bnn_lightning.files import InUseError, UnwritableError, locked, remove_unfinished, require_space, write_whole
from bnn_lightning.reporting import figures
from bnn_lightning.reporting.results import free_name, write_predictions
from bnn_lightning.training.checkpoints import CheckpointError, read_checkpoint, write_checkpoint
from bnn_lightning.training.runs import Run
from tests.helpers import ROOT, write_idx

LENET = str(ROOT / "configs" / "lenet_lrt.yaml")
SMALL = ["--data", "MNIST5k", "--data.train_subset", "600", "--trainer.max_epochs", "2"]
LAST = "checkpoints/lenet_lrt/version_0/last.ckpt"

CONFIG = {"seed_everything": 0, "name": None, "model": {}, "data": {}, "trainer": {}}

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # main() sets filters of its own, which pytest's would undo
    pytest.mark.usefixtures("in_an_empty_folder"),
]


def test_a_file_is_the_old_one_until_the_new_one_is_whole(monkeypatch):
    path = Path("a/b/file")
    write_whole(path, b"old")
    seen = []

    def full(descriptor):
        seen.append((path.read_bytes(), [file.name for file in path.parent.iterdir()]))
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(UnwritableError, match=r"^a/b/file cannot be written: No space left on device\.$"):
            write_whole(path, b"new")
    assert seen[0][0] == b"old"
    assert len(seen[0][1]) == 2
    assert (path.read_bytes(), [file.name for file in path.parent.iterdir()]) == (b"old", ["file"])
    write_whole(path, b"new")
    assert path.read_bytes() == b"new"


def test_what_a_killed_process_has_left_is_removed():
    for name in (".last.ckpt.77", "last.ckpt", ".best.ckpt.77"):
        Path(name).write_bytes(b"x")
    remove_unfinished(Path(), "last.ckpt")
    assert sorted(path.name for path in Path().iterdir()) == [".best.ckpt.77", "last.ckpt"]


def test_a_lock_is_for_one_at_a_time():
    lock = Path("folder/.lock")
    with locked(lock), pytest.raises(InUseError, match=r"^folder is in use by another process\.$"), locked(lock, False):
        pass
    with locked(Path("folder/.lock"), wait=False):
        pass


def test_a_figure_is_the_old_one_until_the_new_one_is_whole(monkeypatch):
    path = Path("figures/curve.png")

    def draw():
        figures.pruning_curve(path, [0, 0.5], [0.9, 0.8], "title")

    draw()
    old = path.read_bytes()

    def half(self, place, **_):
        Path(place).write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Figure, "savefig", half)
    with pytest.raises(UnwritableError, match=r"^figures/curve\.png cannot be written: No space left on device\.$"):
        draw()
    assert (path.read_bytes(), [file.name for file in path.parent.iterdir()]) == (old, ["curve.png"])


def test_tables_that_are_written_at_once_have_names_of_their_own():
    found = []

    def write():
        found.append(write_predictions(Path(), [{"file": "a.png"}]).name)

    others = [threading.Thread(target=write) for _ in range(3)]
    with free_name(Path(), "predictions") as name:
        for other in others:
            other.start()
        others[0].join(0.3)
        Path(f"{name}.csv").write_text("mine")
    for other in others:
        other.join()
    assert sorted(found) == ["predictions_1.csv", "predictions_2.csv", "predictions_3.csv"]
    assert Path("predictions.csv").read_text() == "mine"


class Settings:
    """An object such as a user's callback may have in its state."""


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ({"callbacks": {"Mine": {"settings": Settings()}}}, "['callbacks']['Mine']['settings']"),
        ({"a": [1, (2.0, Settings())]}, "['a'][1][1]"),
        ({"a": {Settings: 1}}, "as a key"),
        ({"a": print}, "builtins.builtin_function_or_method at ['a']"),
    ],
)
def test_a_checkpoint_with_objects_is_refused_when_it_is_saved(value, place):
    with pytest.raises(
        CheckpointError, match=r"^the checkpoint holds .*, no tensor or plain value, and could not"
    ) as error:
        write_checkpoint(value, Path("a.ckpt"))
    assert place in str(error.value)
    assert list(Path().iterdir()) == []


def test_all_plain_values_can_be_read_again():
    values = [True, 10**30, 1.5, 2j, "a", b"x", None, torch.ones(2), torch.float32, torch.device("cpu"), {1: (2, {3})}]
    content = {
        "bnn_lightning": {"format_version": 1},
        "values": [*values, torch.Size([2]), torch.nn.Parameter(torch.ones(1))],
    }
    write_checkpoint(content, Path("a.ckpt"))
    assert len(read_checkpoint("a.ckpt")["values"]) == len(content["values"])


@pytest.mark.parametrize(
    "config",
    [
        {"trainer": {"callbacks": [{"class_path": "LambdaCallback", "init_args": {"on_fit_start": "os.abort"}}]}},
        {"model": {"network": {"class_path": "mine.Net", "init_args": {"norm": "pty.spawn"}}}},
        {"data": {"class_path": "mine.Data", "init_args": {"transform": "logging.config.fileConfig"}}},
        {"trainer": {"profiler": "__main__.start"}},
    ],
)
def test_a_checkpoint_names_no_function_to_call(config, capsys):
    content = {"bnn_lightning": {"format_version": 1, "config": CONFIG | config}}
    message = r"^a\.ckpt names the function (os|pty|logging\.config|__main__)\.\w+ in its config; checkpoints call"
    with pytest.raises(CheckpointError, match=message):
        write_checkpoint(content, Path("a.ckpt"))
    torch.save(content, "a.ckpt")  # what a stranger may do
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint("a.ckpt")
    assert main(["test", "--ckpt_path", "a.ckpt"]) == 2
    assert capsys.readouterr().err.startswith("bnn: error: --ckpt_path: a.ckpt names the function ")


def test_a_checkpoint_may_name_classes_and_activations():
    settings = {
        "norm": "torch.nn.BatchNorm2d",
        "activation": "torch.nn.functional.relu",
        "monitor": "val.nll",
        "x": "a.b",
    }
    network = {"class_path": "torchvision.models.resnet.ResNet", "init_args": settings}
    config = CONFIG | {"model": {"network": network, "init_from": "test.ckpt"}}
    write_checkpoint({"bnn_lightning": {"format_version": 1, "config": config}}, Path("a.ckpt"))
    assert read_checkpoint("a.ckpt")["bnn_lightning"]["config"] == config


@pytest.mark.parametrize("config", ["text", ["list"], {"model": {}}, {"seed_everything": 0}])
def test_a_checkpoint_with_a_config_that_is_none(config):
    torch.save({"bnn_lightning": {"format_version": 1, "config": config}}, "a.ckpt")
    with pytest.raises(CheckpointError, match=r"^a\.ckpt holds a config that is not one of bnn fit's\.$"):
        read_checkpoint("a.ckpt")


def test_a_pickle_in_the_place_of_a_checkpoint_is_refused_by_every_verb(capsys):
    class Bomb:
        def __reduce__(self):
            return (print, ("this must not run",))

    Path("bomb.ckpt").write_bytes(pickle.dumps(Bomb()))
    for verb in ("fit", "validate", "test", "predict", "prune", "export"):
        assert main([verb, "--ckpt_path", "bomb.ckpt"]) == 2
        out, err = capsys.readouterr()
        assert err.startswith("bnn: error: --ckpt_path: bomb.ckpt cannot be read as a checkpoint (")
        assert err.count("\n") == 1
        assert out == ""


# Disks


def test_a_folder_that_cannot_be_written_is_reported_before_training(capsys):
    Path("file").write_text("in the way")
    folder = "file/lightning_logs/lenet_lrt/version_0"
    for root, reason in (
        ("file", f"{folder} cannot be made: Not a directory."),
        ("/proc", "--trainer.default_root_dir /proc has 0.0 MB"),
    ):
        assert main(["fit", "--config", LENET, *SMALL, "--trainer.default_root_dir", root]) == 2
        out, err = capsys.readouterr()
        assert err.startswith(f"bnn: error: {reason}")
        assert out == ""
    Path("lightning_logs").mkdir()
    Path("lightning_logs/lenet_lrt").write_text("in the way")
    assert main(["fit", "--config", LENET, *SMALL]) == 2
    assert "bnn: error: lightning_logs/lenet_lrt" in capsys.readouterr().err


def test_too_little_room_is_reported_before_training(capsys, monkeypatch):
    usage = shutil._ntuple_diskusage(10**9, 10**9 - 2_000_000, 2_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    assert main(["fit", "--config", LENET, *SMALL]) == 2
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
        assert main(["fit", "--config", LENET, *SMALL]) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    error = f"{LAST} cannot be written: File too large. Go on with: bnn fit --ckpt_path {LAST}"
    assert capsys.readouterr().err == f"bnn: error: {error}\n"
    assert [path.name for path in Path(LAST).parent.iterdir()] == ["last.ckpt"]
    assert read_checkpoint(LAST)["global_step"] == 0
    assert main(["fit", "--ckpt_path", LAST]) == 0
    assert read_checkpoint(LAST)["global_step"] == 4


# Several processes at the same work


def together(code, count):
    """Runs ``code`` in ``count`` processes that begin it at the same moment; what each has printed."""
    wait = "import sys, time, pathlib\nprint('ready', flush=True)\n"
    wait += "while not pathlib.Path('go').exists(): time.sleep(0.001)\n"
    imports, _, body = code.partition("\n\n")
    processes = [
        subprocess.Popen([sys.executable, "-c", f"{imports}\n{wait}{body}"], stdout=subprocess.PIPE, text=True)
        for _ in range(count)
    ]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    Path("go").touch()
    return [process.communicate(timeout=120)[0] for process in processes]


def test_runs_that_start_at_once_have_folders_of_their_own():
    code = """
from pathlib import Path
from bnn_lightning.training.runs import Run

for _ in range(20):
    print(Run.reserve(Path(), "run").version)
"""
    versions = [int(line) for out in together(code, 4) for line in out.split()]
    assert sorted(versions) == list(range(80))
    assert Run.reserve(Path(), "run").version == 80


def test_the_same_config_started_twice_at_once():
    words = ["fit", "--config", LENET, *SMALL, "--trainer.max_epochs", "1"]
    outs = together(f"from bnn_lightning.cli import main\n\nassert main({words}) == 0", 2)
    for version, other in ((0, 1), (1, 0)):
        logs, checkpoints = (
            Path(tree, "lenet_lrt", f"version_{version}") for tree in ("lightning_logs", "checkpoints")
        )
        assert {path.name for path in checkpoints.iterdir()} == {"best.ckpt", "last.ckpt"}
        assert len((logs / "metrics.csv").read_text().splitlines()) == 2
        assert len(list(logs.glob("events.*"))) >= 1
        said = [out for out in outs if f"version_{version}" in out]
        assert len(said) == 1
        assert f"version_{other}" not in said[0]


def test_a_set_is_downloaded_once_and_appears_whole(tmp_path):
    code = """
import os
from pathlib import Path
from bnn_lightning.data.downloads import fetch

place = Path("root/SET/raw/file")
def download(folder):
    Path("downloads").open("a").write("x")
    target = Path(folder, "SET", "raw", "file")
    target.parent.mkdir(parents=True)
    with target.open("w") as file:
        for _ in range(50):
            file.write("part"); file.flush(); time.sleep(0.01)
fetch(Path("root"), "SET", place.is_file, download)
print(len(place.read_text()))
"""
    assert [out.split() for out in together(code, 4)] == [["200"]] * 4
    assert Path("downloads").read_text() == "x"
    assert {path.name for path in Path("root").iterdir()} - {".SET.lock"} == {"SET"}


def test_a_download_that_was_killed_leaves_nothing_to_be_taken_for_the_data():
    def killed(folder):
        write_idx(Path(folder, "SET", "file"), torch.zeros(3).numpy())
        raise KeyboardInterrupt

    place = Path("root/SET/file")
    with pytest.raises(KeyboardInterrupt):
        fetch(Path("root"), "SET", place.is_file, killed)
    Path("root/.SET.unfinished-of-a-killed-process").mkdir()
    assert not place.exists()
    fetch(Path("root"), "SET", place.is_file, lambda folder: write_whole(Path(folder, "SET", "file"), b"whole"))
    assert place.read_bytes() == b"whole"
    assert {path.name for path in Path("root").iterdir()} - {".SET.lock"} == {"SET"}
    fetch(Path("root"), "SET", place.is_file, killed)  # it is there: nobody downloads
