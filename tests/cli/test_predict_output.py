"""``bnn predict``: the columns of its table, its kinds of file, and folders that are larger than memory."""

import errno
import os
import signal
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bnn_lightning.cli import main
from bnn_lightning.cli.verbs import predict
from bnn_lightning.data.picture_stream import PictureStream
from bnn_lightning.preprocessing.decoding import Decoder
from tests.helpers import ON_THE_COMMAND_LINE, printed, table

pytestmark = ON_THE_COMMAND_LINE
FOLDER = ["--data", "ImageFolder", "--data.root", "new"]


def pictures(places, seed=0):
    rng = np.random.default_rng(seed)
    for place in places:
        path = Path("new") / place
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (28, 28), dtype=np.uint8)).save(path)


def test_a_row_has_the_probability_of_each_class_and_the_known_label(run, capsys):
    assert main(["predict", "--ckpt_path", str(run / "best.ckpt"), "--output", "rows.csv"]) == 0
    said = printed(capsys)
    assert "1,000 predictions written to rows.csv" in said
    rows = table(Path("rows.csv"))
    counts = sorted(Counter(row["name"] for row in rows).items(), key=lambda item: (-item[1], item[0]))
    accepted = sum(row["decision"] == "accept" for row in rows)
    shown = ", ".join(f"{name} {count}" for name, count in counts)
    assert f"\nPredicted as: {shown}; accepted: {accepted}\n" in said
    for row in rows[::50]:
        probabilities = [float(row[f"probability/{digit}"]) for digit in range(10)]
        assert sum(probabilities) == pytest.approx(1, abs=10 * 5e-7)  # of ten that are rounded
        assert probabilities[int(row["class"])] == float(row["confidence"]) == max(probabilities)
        assert row["label"] == row["label_name"]
    right = sum(row["class"] == row["label"] for row in rows)
    assert right > 150  # a network of two epochs is better than guessing, which gives 100 with an error of 9.5


def test_with_an_output_nothing_else_is_written():
    # So that it runs where the current folder cannot be written.
    pictures(["a.png"])
    words = [*FOLDER, "--output", "rows.csv"]
    assert main(["predict", "--ckpt_path", "lenet_lrt_mnist", *words]) == 0
    assert sorted(path.name for path in Path().iterdir()) == ["new", "rows.csv"]


@pytest.mark.parametrize("root", ["", "train/"])
def test_labels_are_those_of_folders_that_are_called_like_classes(root, run):
    pictures([f"{root}3/a.png", f"{root}7/b.png", f"{root}other/c.png", "d.png"])
    Path("new/e.png").write_bytes(b"nothing")
    assert main(["predict", "--ckpt_path", str(run / "best.ckpt"), *FOLDER, "--output", "rows.csv"]) == 0
    labels = {Path(row["file"]).name: (row["label"], row["label_name"]) for row in table(Path("rows.csv"))}
    assert labels == {
        "a.png": ("3", "3"),
        "b.png": ("7", "7"),
        "c.png": ("", ""),
        "d.png": ("", ""),
        "e.png": ("", ""),
    }
    pictures(["plain.png"])
    words = ["--data", "ImageFolder", "--data.root", "new/plain.png", "--output", "one.csv"]
    assert main(["predict", "--ckpt_path", str(run / "best.ckpt"), *words]) == 0
    assert "label" not in table(Path("one.csv"))[0]


def test_labels_of_other_classes_are_none(run, fake_mnist):
    root = fake_mnist(name="FashionMNIST")
    words = ["--data", "FashionMNIST", "--data.root", root, "--output", "rows.csv"]
    assert main(["predict", "--ckpt_path", str(run / "best.ckpt"), *words]) == 0
    assert "label" not in table(Path("rows.csv"))[0]


def test_parquet_has_the_same_rows(run):
    parquet = pytest.importorskip("pyarrow.parquet")
    pictures([f"{index}.png" for index in range(5)])
    Path("new/a.png").write_bytes(b"nothing")
    for output in ("rows.csv", "rows.parquet"):
        words = [*FOLDER, "--output", output, "--data.eval_batch_size", "2"]
        assert main(["predict", "--ckpt_path", str(run / "best.ckpt"), *words]) == 0
    rows = parquet.read_table("rows.parquet").to_pylist()
    as_texts = [{name: "" if value is None else str(value) for name, value in row.items()} for row in rows]
    assert as_texts == table(Path("rows.csv"))
    assert [type(row["class"]) for row in rows] == [int] * 5 + [type(None)]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--output rows.txt", "--output must end in .csv or .parquet, got rows.txt."),
        ("--output new.csv", "--output must be a file, got the folder new.csv."),
    ],
)
def test_an_output_that_cannot_be_is_refused_before_any_work(words, sentence, run, capsys):
    Path("new.csv").mkdir()
    assert main(["predict", "--ckpt_path", str(run / "best.ckpt"), *words.split()]) == 2
    assert printed(capsys).splitlines()[-1] == f"bnn: error: {sentence}"


def test_pictures_are_read_while_they_are_predicted(run, monkeypatch):
    pictures([f"{index:02}.png" for index in range(20)])
    Path("new/05.png").write_bytes(b"nothing")
    events = []
    decode, add = Decoder.__call__, predict.PredictionTable.add
    monkeypatch.setattr(Decoder, "__call__", lambda self, file: events.append(file.name) or decode(self, file))
    monkeypatch.setattr(predict.PredictionTable, "add", lambda self, part: events.append(len(part)) or add(self, part))
    words = [*FOLDER, "--data.eval_batch_size", "4", "--output", "rows.csv"]
    assert main(["predict", "--ckpt_path", str(run / "best.ckpt"), *words]) == 0
    # Lightning asks for one batch more than it is at; batches are full whatever cannot be read.
    assert [event for event in events if isinstance(event, int)] == [4, 4, 4, 4, 3]
    for count, place in enumerate((index for index, event in enumerate(events) if isinstance(event, int)), 1):
        assert sum(isinstance(event, str) for event in events[:place]) <= 4 * (count + 1) + 1
    rows = table(Path("rows.csv"))
    assert [Path(row["file"]).name for row in rows] == [f"{i:02}.png" for i in range(20) if i != 5] + ["05.png"]
    assert "cannot identify image file" in rows[-1]["error"]


def test_streaming_changes_no_number(run, monkeypatch):
    pictures([f"{index:02}.png" for index in range(9)])
    words = ["predict", "--ckpt_path", str(run / "best.ckpt"), *FOLDER, "--data.eval_batch_size", "4"]
    assert main([*words, "--output", "streamed.csv"]) == 0
    assert main([*words, "--output", "cached.csv", "--data.cache", "cache"]) == 0  # the cache is read as a whole
    assert Path("streamed.csv").read_text() == Path("cached.csv").read_text()


def test_a_folder_without_a_readable_picture_and_a_limit_work_too(run, capsys):
    Path("new").mkdir()
    for name in ("a.png", "b.png"):
        Path("new", name).write_bytes(b"nothing")
    words = ["predict", "--ckpt_path", str(run / "best.ckpt"), *FOLDER, "--output", "rows.csv"]
    assert main(words) == 0
    assert [row["file"] for row in table(Path("rows.csv"))] == ["new/a.png", "new/b.png"]
    assert "Could not be read: 2; the last rows say why." in printed(capsys)
    pictures([f"{index}.png" for index in range(6)])
    assert main([*words, "--data.eval_batch_size", "2", "--trainer.limit_predict_batches", "2"]) == 0
    assert [Path(row["file"]).stem for row in table(Path("rows.csv"))][:4] == ["0", "1", "2", "3"]
    assert main([*words, "--trainer.fast_dev_run", "true"]) == 0
    assert "6 predictions, which are not written" in printed(capsys)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_is_stopped_keeps_its_rows_and_the_file_that_was_there(number, run, monkeypatch, capsys):
    pictures([f"{index}.png" for index in range(8)])
    Path("rows.csv").write_text("earlier")
    add = predict.PredictionTable.add

    def stopping(self, part):
        add(self, part)
        if self.rows == 4:
            signal.raise_signal(number)

    monkeypatch.setattr(predict.PredictionTable, "add", stopping)
    words = [*FOLDER, "--data.eval_batch_size", "2", "--output", "rows.csv"]
    handler = signal.getsignal(signal.SIGINT)
    try:
        assert main(["predict", "--ckpt_path", str(run / "best.ckpt"), *words]) == 128 + number
    finally:
        signal.signal(signal.SIGINT, handler)
    assert Path("rows.csv").read_text() == "earlier"
    (left,) = Path().glob("rows.unfinished.*.csv")
    assert len(table(left)) == 4
    assert f"The first 4 rows are in {left}." in printed(capsys)


def test_a_disk_that_becomes_full_has_the_rest_on_the_screen(run, monkeypatch, capsys):
    pictures([f"{index}.png" for index in range(6)])
    add = predict.PredictionTable.add

    def filling(self, part):
        if self.rows == 2:
            raise self._unwritable(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
        add(self, part)

    monkeypatch.setattr(predict.PredictionTable, "add", filling)
    words = [*FOLDER, "--data.eval_batch_size", "2", "--output", "rows.csv"]
    assert main(["predict", "--ckpt_path", str(run / "best.ckpt"), *words]) == 2
    lines = printed(capsys).splitlines()
    assert [line.partition(",")[0] for line in lines if line.startswith(("file,", "new/"))] == [
        *("file", "new/2.png", "new/3.png", "new/4.png", "new/5.png")
    ]
    assert "No space left on device; the first 2 rows are in rows.unfinished." in lines[-1]
    assert len(table(next(Path().glob("rows.unfinished.*.csv")))) == 2


def test_a_stream_begins_again_with_each_pass(run):
    from bnn_lightning.data import ImageFolder

    pictures(["a.png", "b.png", "c.png"])
    data = ImageFolder("new", image_size=28, channels=1, eval_batch_size=2, mean=0.5, std=0.5)
    data.streams_predict = True
    data.setup("predict")
    assert isinstance(data.predict, PictureStream)
    for _ in range(2):
        assert [len(x) for x, _ in data.predict_dataloader()] == [2, 1]
        assert data.predict_names(1) == ["new/b.png", "new/c.png"]
