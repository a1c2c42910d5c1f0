"""Fingerprints of examples: equal for equal ones, and for no others."""

import torch

from bnn_lightning.data import Table
from bnn_lightning.data.fingerprints import fingerprints, joined, shared
from bnn_lightning.reporting.caveats import explained


def test_a_fingerprint_is_that_of_the_bytes_wherever_an_example_lies():
    inputs = torch.rand(5, 1, 4, 6, generator=torch.Generator().manual_seed(1))
    first, *others = fingerprints(inputs)
    assert (len(first), len(set(others))) == (16, 4)
    assert fingerprints(inputs.flip(0)) == [*reversed(others), first]
    assert fingerprints(inputs.transpose(2, 3).contiguous().transpose(2, 3)) == [first, *others]  # strides say nothing
    assert fingerprints(inputs[:0]) == []


def test_one_pixel_makes_another_example():
    images = torch.zeros(785, 1, 28, 28, dtype=torch.uint8)
    images.view(785, 784)[:784].fill_diagonal_(1)
    assert len(set(fingerprints(images))) == 785


def test_examples_that_are_known_are_counted():
    first, second = torch.rand(2, 10, 3, generator=torch.Generator().manual_seed(0)).unbind()
    known = joined(fingerprints(first))
    assert shared(fingerprints(torch.cat([second, first[:4], first[:1]])), known) == 5
    assert shared(fingerprints(second), known) == shared([], known) == shared(fingerprints(first), "") == 0


def test_copies_in_the_hold_out_are_noted_where_the_data_are_described(tmp_path):
    rows = [f"{number},{number % 7}" for number in range(30)]
    (tmp_path / "once.csv").write_text("\n".join(["a,b", *rows]))
    (tmp_path / "twice.csv").write_text("\n".join(["a,b", *rows, *rows]))
    table = Table(path=str(tmp_path / "once.csv"), val_split=0.4)
    table.setup("fit")
    assert table.describe()["notes"] == []
    table = Table(path=str(tmp_path / "twice.csv"), val_split=0.4)
    table.setup("fit")
    trained = {tuple(row) for row in table.train.features.tolist()}
    notes = []
    for half in ("selection", "calibration"):
        features = getattr(table, half).features.tolist()
        count = sum(tuple(row) in trained for row in features)
        assert count
        notes.append(f"{count} of {len(features)} {half} examples are training examples")
    assert table.describe()["notes"] == table.describe()["notes"] == notes
    assert all("too confident" in explained(note).meaning for note in notes)
