"""What comes with the package: wheel and sdist, bare names, ``bnn configs``."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import numpy as np
import pytest

from bnn_lightning import BayesianModule, Predictor
from bnn_lightning.cli import UsageError, main
from bnn_lightning.cli.entry import first_error
from bnn_lightning.cli.shipped import configs
from bnn_lightning.shipped import beside, found
from bnn_lightning.studies import study
from tests.helpers import ROOT


def build(source, target):
    """Wheel and sdist of a source tree; what they hold, without the folder that the sdist's names begin with."""
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(target)]
    result = subprocess.run(command, cwd=source, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    (wheel,), (sdist,) = target.glob("*.whl"), target.glob("*.tar.gz")
    return wheel, sdist


@pytest.mark.slow
def test_wheel_and_sdist_hold_the_product(tmp_path):
    wheel, sdist = build(ROOT, tmp_path / "built")
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
    own = [path for path in (ROOT / "bnn_lightning").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert {path.relative_to(ROOT).as_posix() for path in own} <= names
    shipped = {f"bnn_lightning/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "configs").rglob("*.yaml")}
    shipped |= {f"bnn_lightning/checkpoints/{path.name}" for path in (ROOT / "checkpoints").glob("*_mnist.ckpt")}
    assert shipped | {"bnn_lightning/py.typed"} <= names
    with tarfile.open(sdist) as file:
        file.extractall(tmp_path, filter="data")
    again, _ = build(tmp_path / sdist.name.removesuffix(".tar.gz"), tmp_path / "rebuilt")
    assert set(zipfile.ZipFile(again).namelist()) == names


def first_page():
    """The README's commands of ``bnn`` up to the choice of a method, without demo, which has a test of its own."""
    page = (ROOT / "README.md").read_text().partition("## Which method?")[0]
    lines = [line for block in re.findall(r"```bash\n(.*?)```", page, re.DOTALL) for line in block.splitlines()]
    words = [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("bnn ")]
    return [command for command in words if command != ["demo"]]


def shortened(words):
    if "CIFAR10" in words:
        return [
            *words,
            "--data",
            "MNIST5k",
            "--data.batch_size",
            "8",
            "--trainer.fast_dev_run",
            "true",
        ]  # its files are not here
    return [*words, "--trainer.max_epochs", "1", "--data.batch_size", "100"] if words[0] == "fit" else words


@pytest.mark.slow
def test_the_first_page_of_the_readme_runs_where_only_the_wheel_is_installed(tmp_path, fake_mnist):
    wheel, _ = build(ROOT, tmp_path / "built")
    venv.create(tmp_path / "env", with_pip=False, symlinks=True)
    python = tmp_path / "env" / "bin" / "python"
    (packages,) = (tmp_path / "env" / "lib").glob("python*/site-packages")
    # The dependencies are those of this environment; a line of a .pth file does not follow its links to source trees.
    (packages / "present.pth").write_text(sysconfig.get_paths()["purelib"])
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(install, capture_output=True, check=True)

    folder = tmp_path / "empty"
    folder.mkdir()
    shutil.copytree(fake_mnist(), folder / "data")
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "BNN_DATA")}
    run = {"cwd": folder, "env": environment, "capture_output": True, "text": True, "check": True}
    assert "lenet_lrt_mnist" in subprocess.run([python.with_name("bnn"), "configs"], **run).stdout
    commands = [shortened(words) for words in first_page()]
    assert len(commands) >= 7
    program = (
        "import json, sys, bnn_lightning\nfrom bnn_lightning.cli import main\nprint(bnn_lightning.__file__)\n"
        "for words in json.loads(sys.argv[1]):\n    assert main(words) == 0, words"
    )
    out = subprocess.run([python, "-W", "ignore", "-c", program, json.dumps(commands)], **run).stdout
    assert out.startswith(str(packages))
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == [
        "lenet_deterministic_mnist",
        "lenet_flipout_mnist",
        "lenet_ivon",
    ]
    assert (folder / "lightning_logs" / "lenet_ivon" / "version_0" / "report.html").is_file()
    assert (folder / "lightning_logs" / "lenet_ivon_mnist" / "version_0" / "predictions.csv").is_file()


def test_a_file_wins_over_a_bare_name(in_an_empty_folder):
    assert found("lenet_lrt", "config") == found("lenet_lrt.yaml", "config") == str(ROOT / "configs" / "lenet_lrt.yaml")
    assert found("twins", "study") == str(ROOT / "configs" / "studies" / "twins.yaml")
    assert found("lenet_lrt_mnist", "checkpoint") == str(ROOT / "checkpoints" / "lenet_lrt_mnist.ckpt")
    for name in ("twins", "", "nope", "configs/lenet_lrt", "/lenet_lrt", "../lenet_lrt", "best.ckpt"):
        assert found(name, "config") == name
    Path("lenet_lrt.yaml").write_text("a copy")
    assert found("lenet_lrt", "config") == found("lenet_lrt.yaml", "config") == "lenet_lrt.yaml"
    Path("lenet_lrt").write_text("mine")
    assert found("lenet_lrt", "config") == "lenet_lrt"


@pytest.mark.filterwarnings("ignore")
def test_fit_and_test_take_bare_names(in_an_empty_folder, capsys):
    assert main(["fit", "--config=lenet_lrt", "--data", "MNIST5k", "--data.batch_size", "0"]) == 2
    assert "--data.batch_size must be" in capsys.readouterr().err
    assert main(["fit", "--config", "lenet_lrtt"]) == 2
    assert "lenet_lrtt" in capsys.readouterr().err
    assert main(["predict", "--ckpt_path", "lenet_lrt_mnist", "--data", "MNIST5k"]) == 0
    assert main(["predict", "--ckpt_path", "lenet_lrt_mnist", "--data", "MNIST5k"]) == 0
    # One folder, whatever is asked for how often, and nothing for TensorBoard.
    folder = Path("lightning_logs/lenet_lrt_mnist/version_0")
    assert list(folder.parent.iterdir()) == [folder]
    names = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    assert names == {"predictions.csv", "predictions_1.csv"}
    assert study(["twins", "--dry_run"]) == 0


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ("fit lenet_lrt", "--config lenet_lrt"),
        ("fit own/a.yaml", "--config own/a.yaml"),
        ("fit last.ckpt", "--ckpt_path last.ckpt"),
        ("predict lenet_lrt_mnist --ckpt_path lenet_ivon_mnist", "--ckpt_path lenet_lrt_mnist"),
    ],
)
def test_a_name_without_its_flag_is_told_which(words, meant):
    name, verb = meant.rpartition(" ")[2], words.partition(" ")[0]
    sentence = f"{name} belongs to no flag (did you mean {meant}?); flags begin with --, and bnn {verb} --help lists"
    assert first_error(words.split()) == f"{sentence} them."


def test_python_takes_bare_names(in_an_empty_folder):
    image = np.zeros((28, 28), dtype=np.uint8)
    assert Predictor.load("lenet_ivon_mnist")(image).entropy[0] > 0
    assert not BayesianModule.from_checkpoint("lenet_lrt_mnist").training


def test_configs_shows_and_copies(in_an_empty_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert configs([]) == 0
    out = capsys.readouterr().out
    for path in (*(ROOT / "configs").glob("*.yaml"), *(ROOT / "configs" / "studies").glob("*.yaml")):
        assert f"  {path.stem} " in out
    assert "for bnn test --ckpt_path NAME: lenet_ivon_mnist, lenet_lrt_mnist." in out
    assert configs(["lenet_bbb.yaml", "twins", "--to", "mine"]) == 0
    assert sorted(path.name for path in Path("mine").iterdir()) == ["lenet_bbb.yaml", "lenet_lrt.yaml", "twins.yaml"]
    assert Path("mine/lenet_bbb.yaml").read_text() == (ROOT / "configs" / "lenet_bbb.yaml").read_text()
    assert study(["mine/twins.yaml", "--dry_run"]) == 0
    assert configs(["acquisition_mnist", "--to", "loops"]) == 0
    assert study(["loops/acquisition_mnist.yaml", "--dry_run"]) == 0
    Path("a_file").touch()
    for words, sentence in (
        (
            ["uci", "--to", "a_file/here"],
            r"--to must be a folder that can be written, got a_file/here: Not a directory\.",
        ),
        (["twins", "--to", "mine"], r"mine/twins.yaml is there already; move it away, or copy to another folder"),
        (["uci", "nope"], r"there is no config or study nope; bnn configs shows what there is\."),
        (["--too=mine"], r"--too is not a flag \(did you mean --to\?\); bnn configs --help says what there is\."),
    ):
        with pytest.raises(UsageError, match=f"^{sentence}"):
            configs(words)
    assert not Path("uci.yaml").exists()
    assert configs(["uci", "--to=~/mine"]) == 0
    assert Path("~/mine").expanduser().joinpath("uci.yaml").is_file()


def test_what_is_made_of_a_shipped_checkpoint_goes_into_the_current_folder(tmp_path):
    shipped = Path(found("lenet_lrt_mnist", "checkpoint"))
    assert shipped.is_file()
    assert beside(shipped, "lenet.onnx") == Path("lenet.onnx")
    assert beside(tmp_path / "best.ckpt", "best.onnx") == tmp_path / "best.onnx"


def test_words_that_no_file_could_be_called_are_no_shipped_names():
    for name in ("", "x" * 300, "configs/lenet_lrt", "lenet_lrt_mnist.yaml"):
        assert found(name, "checkpoint") == name
