"""The table of predict while it is written, when it is finished, and when it is not."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from bnn_lightning.files import UnwritableError
from bnn_lightning.likelihoods import Categorical
from bnn_lightning.reporting.prediction_table import PredictionTable, check_output
from tests.helpers import table

pytestmark = pytest.mark.usefixtures("in_an_empty_folder")
FORMATS = ["rows.csv", "rows.parquet"]


def part(start, count=3, labels=None):
    likelihood = Categorical()
    generator = torch.Generator().manual_seed(start)
    summary = likelihood.summary(torch.randn(5, count, 3, generator=generator, dtype=torch.float64))
    files = [f"{start + index}.png" for index in range(count)]
    return likelihood.predictions(summary, ("a", "ü", "\udcff"), None, files, labels)


def write(name, labels):
    with PredictionTable(Path(), Path(name)) as rows:
        rows.add(part(0, labels=labels[0]))
        rows.add(part(3, labels=labels[1]))
        rows.add_unreadable({"bad.png": "damaged"})
        return rows.finish()


@pytest.mark.parametrize("name", FORMATS)
def test_chunks_make_one_file_whose_whole_numbers_stay_whole(name):
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    unknown = torch.tensor([-1, -1, -1])
    path = write(name, (unknown, torch.tensor([2, -1, 0])))
    if name.endswith("csv"):
        rows = table(path)
        classes, labels = ([row[key] for row in rows] for key in ("class", "label"))
        assert all(value in ("0", "1", "2") for value in classes[:6])
        assert (classes[6], labels) == ("", ["", "", "", "2", "", "0", ""])
    else:
        from pyarrow import parquet

        rows = parquet.read_table(path).to_pylist()
        assert [type(row["class"]) for row in rows] == [int] * 6 + [type(None)]
        assert [row["label"] for row in rows] == [None, None, None, 2, None, 0, None]
        pandas = pytest.importorskip("pandas")
        frame = pandas.read_parquet(path)
        assert (str(frame["class"].dtype), str(frame["label"].dtype)) == ("Int64", "Int64")
    assert [row["file"] for row in rows] == [*(f"{index}.png" for index in range(6)), "bad.png"]
    assert rows[6]["error"] == "damaged"
    assert np.isclose(float(rows[4]["confidence"]), part(3).columns()["confidence"][1])
    assert list(Path().iterdir()) == [path]


@pytest.mark.parametrize("name", FORMATS)
def test_what_is_interrupted_keeps_its_rows_and_the_file_that_was_there(name):
    Path(name).write_text("earlier")

    def stopped():
        with PredictionTable(Path(), Path(name)) as rows:
            rows.add(part(0))
            unfinished.append(rows.unfinished)
            raise KeyboardInterrupt

    unfinished = []
    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert Path(name).read_text() == "earlier"
    if name.endswith("csv"):
        rows = table(unfinished[0])
    else:
        rows = pytest.importorskip("pyarrow.parquet").read_table(unfinished[0]).to_pylist()
    assert [row["file"] for row in rows] == ["0.png", "1.png", "2.png"]


def test_a_process_that_is_killed_leaves_its_rows():
    rows = PredictionTable(Path())
    rows.add(part(0))
    assert [row["file"] for row in table(rows.unfinished)] == ["0.png", "1.png", "2.png"]  # nothing waits in a buffer
    assert not Path("predictions.csv").exists()
    with rows:
        pass


def test_a_full_disk_is_a_sentence_that_says_where_the_first_rows_are(monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def fill():
        with PredictionTable(Path(), Path("rows.csv")) as rows:
            rows.add(part(0))
            monkeypatch.setattr(os, "fsync", full)
            rows.finish()

    sentence = (
        r"^rows\.csv cannot be written: No space left on device; the first 3 rows are in rows\.unfinished\.\w+\.csv"
    )
    with pytest.raises(UnwritableError, match=sentence):
        fill()
    assert not Path("rows.csv").exists()


def test_a_table_without_a_row_has_its_header():
    with PredictionTable(Path()) as rows:
        assert rows.finish().read_text() == "file,error\n"


def test_files_that_cannot_be_written_are_refused_before(monkeypatch):
    Path("folder.csv").mkdir()
    for name, sentence in (
        ("rows.txt", r"^output must end in \.csv or \.parquet, got rows\.txt\.$"),
        ("folder.csv", r"^output must be a file, got the folder folder\.csv\.$"),
    ):
        with pytest.raises(ValueError, match=sentence):
            check_output(Path(name))
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(
        ValueError, match=r"^output must end in \.csv where pyarrow is not installed, .*\[parquet\]'\.$"
    ):
        check_output(Path("rows.parquet"))
