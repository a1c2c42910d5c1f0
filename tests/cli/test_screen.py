"""What is printed: never the end of a run, whatever the encoding, the pipe or the disk; results are written first."""

import errno
import io
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console
from rich.progress import Progress, TextColumn

from bnn_lightning.checkpoints.summary import TrainingSummary
from bnn_lightning.cli import main
from bnn_lightning.cli.epoch_bar import EpochBar
from bnn_lightning.cli.screen import unfailing_screen
from bnn_lightning.files import UnwritableError
from bnn_lightning.reporting.tables import show_training
from tests.helpers import LENET, ON_THE_COMMAND_LINE, ROOT, SMALL, printed, table

pytestmark = ON_THE_COMMAND_LINE
LOGS = Path("lightning_logs/lenet_lrt_mnist5k/version_0")


def screen(encoding, errors="strict"):
    return io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors=errors)


@pytest.mark.parametrize(
    ("encoding", "errors", "shown"),
    [
        ("utf-8", "strict", "± 红 _…".encode()),
        ("ascii", "strict", rb"+- \u7ea2 _..."),
        ("ascii", "surrogateescape", rb"+- \u7ea2 _..."),  # Python's own in the locale C
        ("cp1252", "strict", b"\xb1 \\u7ea2 _\x85"),
        ("ascii", "replace", b"? ? _?"),  # as PYTHONIOENCODING has asked for
    ],
)
def test_letters_that_the_screen_lacks_are_spelt(encoding, errors, shown, monkeypatch):
    stream = screen(encoding, errors)
    monkeypatch.setattr(sys, "stdout", stream)
    with unfailing_screen():
        print("± 红 _…", end="")
    assert sys.stdout is stream
    assert stream.buffer.getvalue() == shown


def test_a_file_name_that_is_no_text_is_spelt(monkeypatch):
    monkeypatch.setattr(sys, "stdout", screen("utf-8"))
    with unfailing_screen():
        print(os.fsdecode(b"\xff.png"), end="")
    assert sys.stdout.buffer.getvalue() == rb"\udcff.png"


def test_a_test_is_shown_in_ascii(run, monkeypatch):
    monkeypatch.setattr(sys, "stdout", screen("ascii"))
    assert main(["test", "--ckpt_path", str(run / "best.ckpt")]) == 0
    lines = sys.stdout.buffer.getvalue().decode("ascii").splitlines()
    assert lines[0] == "MNIST5k, 1,000 images:"
    assert "+- images" in lines[1]
    accuracy = next(line for line in lines if line.startswith("accuracy "))
    # Numbers stand right under the ends of their titles.
    for title in ("+- images", "+- draws", "1 weight draw"):
        assert accuracy[lines[1].index(title) + len(title) - 1] == "%"


class Closed(io.TextIOWrapper):
    """Fails after the first line, as a pipe does whose reader has gone, or a disk that has become full."""

    def __init__(self, number):
        super().__init__(io.BytesIO(), encoding="utf-8")
        self.number, self.left = number, 1

    def write(self, text):
        if self.left == 0:
            raise OSError(self.number, os.strerror(self.number))
        self.left -= text.count("\n") > 0
        return super().write(text)


@pytest.mark.parametrize(("number", "code"), [(errno.EPIPE, 0), (errno.ENOSPC, 2)])
def test_what_cannot_be_printed_is_written(number, code, run, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdout", Closed(number))
    assert main(["test", "--ckpt_path", str(run / "best.ckpt")]) == code
    assert table(LOGS / "test_mnist5k_best.csv")[0]["prediction"] == "samples"
    assert (LOGS / "test_mnist5k_best_reliability.png").is_file()
    lost = "bnn: what was printed could not all be written: No space left on device.\n"
    assert capsys.readouterr().err.endswith(lost if code else "")


def test_training_goes_on_when_nobody_reads_any_more(monkeypatch):
    monkeypatch.setattr(sys, "stdout", Closed(errno.EPIPE))
    assert main(["fit", "--config", LENET, *SMALL, "--trainer.max_epochs", "2", "--name", "piped"]) == 0
    assert [row["epoch"] for row in table(Path("lightning_logs/piped/version_0/metrics.csv"))] == ["1", "2"]


def unwritable(*args):
    raise UnwritableError(f"{LOGS} cannot be written: Read-only file system.")


@pytest.mark.parametrize(
    ("verb", "writes", "shown"),
    [
        ("test", "test.write_evaluation", "accuracy "),
        ("predict", "predict.PredictionTable.add", "file,class,name,confidence,"),
        ("prune --removed 0.5", "prune.write_table", "removed "),
        ("export --removed 0.5", "export.write_table", "layer "),
    ],
)
def test_what_cannot_be_written_is_printed(verb, writes, shown, run, monkeypatch, capsys):
    monkeypatch.setattr(f"bnn_lightning.cli.verbs.{writes}", unwritable)
    assert main([*verb.split(), "--ckpt_path", str(run / "best.ckpt")]) == 2
    lines = printed(capsys).splitlines()
    assert any(line.startswith(shown) for line in lines)
    assert lines[-1] == f"bnn: error: {LOGS} cannot be written: Read-only file system."


def test_a_folder_without_room_for_tensorboard_is_tested_without_it(run, monkeypatch, capsys):
    monkeypatch.setattr("bnn_lightning.cli.command_line.is_writable", lambda folder, needed: False)
    before = list(LOGS.glob("events*"))
    assert main(["test", "--ckpt_path", str(run / "best.ckpt")]) == 0
    assert "accuracy " in printed(capsys)
    assert list(LOGS.glob("events*")) == before


def test_a_config_is_read_as_utf8_whatever_the_machine_reads():
    """In another process, whose locale's encoding is ASCII."""
    text = "# ± 红\nmodel: {network: LeNet}\ndata: MNIST5k\nname: größe\n"
    Path("own.yaml").write_text(text, "utf-8")
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-m", "bnn_lightning", "fit", "--config", "own.yaml", "--print_config"]
    shown = subprocess.run(words, env=os.environ | ascii_only, capture_output=True, check=True).stdout
    assert rb"name: gr\xf6\xdfe" in shown


@pytest.mark.parametrize(("width", "columns"), [(40, 1), (60, 3), (80, 4), (120, 5)])
def test_an_epoch_is_a_line_of_the_progress_bar_in_any_terminal(width, columns, monkeypatch):
    console = Console(width=width, file=io.StringIO(), force_terminal=True, color_system=None)
    monkeypatch.setattr("bnn_lightning.cli.epoch_bar.get_console", lambda: console)
    shown = EpochBar().configure_columns(SimpleNamespace(max_epochs=20, num_training_batches=188))
    assert len(shown) == columns
    bar = Progress(*shown, TextColumn("nll: 0.1234 val: 0.1234, 97.53 %"), console=console)
    bar.add_task("Epoch 20/20", total=188, completed=188)
    if width > 40:  # where the results alone have no room
        lines = [
            line for line in console.render_lines(bar.get_renderable()) if "".join(cell.text for cell in line).strip()
        ]
        assert len(lines) == 1


def test_numbers_of_a_table_are_not_cut_in_a_narrow_terminal(capsys):
    summary = TrainingSummary(1, 500, 2.28, 0.2, 145_463.0, 1.0, -293.206, 2.3, 0.1)
    show_training(Console(width=30), {"best": (summary, {"val/nll": 2.281, "val/accuracy": 0.2167}, [])})
    row = capsys.readouterr().out.splitlines()[1]
    assert row.split() == ["best", "2", "2.2810", "21.67", "%", "2.2800", "290.926", "-293.206"]
