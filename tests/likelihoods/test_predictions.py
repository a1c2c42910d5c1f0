"""Predictions as a sequence, as columns, and as a DataFrame."""

import numpy as np
import pytest
import torch

from bnn_lightning.likelihoods import Categorical
from bnn_lightning.likelihoods.categorical.calibration import Calibration
from bnn_lightning.likelihoods.categorical.predictions import MOST_CLASSES, TOP


def predictions(classes=3, count=6, names=("cat", "dog", "owl"), labels=None):
    likelihood = Categorical()
    generator = torch.Generator().manual_seed(0)
    summary = likelihood.summary(3 * torch.randn(5, count, classes, generator=generator, dtype=torch.float64))
    log_probs = torch.randn(200, classes, generator=generator, dtype=torch.float64).log_softmax(-1)
    truth = torch.multinomial(log_probs.exp(), 1, generator=generator).flatten()
    calibration = Calibration.fit(log_probs, truth)
    files = [f"{index}.png" for index in range(count)]
    return likelihood.predictions(summary, names, likelihood.thresholds(calibration, 0.6, 0.05), files, labels)


def test_they_are_a_sequence_of_single_ones():
    all_of_them = predictions()
    assert len(all_of_them) == len(list(all_of_them)) == 6
    assert max(map(len, all_of_them.prediction_sets)) > 1
    for each in all_of_them:
        assert list(each.prediction_set) == sorted(each.prediction_set, key=each.probabilities.get, reverse=True)
    one = all_of_them[2]
    assert one.name == all_of_them.names[2] == one.prediction_set[0]
    assert one.probabilities == dict(zip(("cat", "dog", "owl"), all_of_them.probabilities[2], strict=True))
    assert (one.file, one.accepted) == ("2.png", bool(all_of_them.accepted[2]))
    assert all_of_them[-1] == all_of_them[5]
    some = all_of_them[1:3]
    assert (type(some), len(some), some[1]) == (type(all_of_them), 2, one)
    assert [each.file for each in all_of_them[np.array([4, 0])]] == ["4.png", "0.png"]
    with pytest.raises(IndexError, match=r"^index must be below 6, the number of predictions, got 6\.$"):
        all_of_them[6]
    assert repr(all_of_them).splitlines()[0] == "ClassPredictions: 6 predictions"
    assert repr(all_of_them).splitlines()[-1] == "  ... 1 more"
    assert one.name in repr(one)
    with pytest.raises(AttributeError):
        one.name = "another"


def test_single_rows_and_columns_say_the_same():
    labels = torch.tensor([0, -1, 2, 1, -1, 0])
    all_of_them = predictions(labels=labels)
    for one, row, label in zip(all_of_them, all_of_them.rows(), labels.tolist(), strict=True):
        assert row["name"] == one.name
        assert row["set"] == " | ".join(one.prediction_set)
        assert row["label"] == (None if label < 0 else label)
        assert row["label_name"] == (None if label < 0 else ("cat", "dog", "owl")[label])
        assert row["decision"] == ("accept" if one.accepted else "abstain")
        for name, value in one.probabilities.items():
            assert row[f"probability/{name}"] == round(value, 6)


def test_of_many_classes_the_most_probable_are_told():
    fits, many = (predictions(MOST_CLASSES + more, names=()) for more in (0, 1))
    assert sum(name.startswith("probability/") for name in fits.columns()) == MOST_CLASSES
    columns = many.columns()
    assert not any(name.startswith("probability/") for name in columns)
    order = np.sort(many.probabilities, -1)[:, ::-1]
    for place in range(TOP):
        np.testing.assert_allclose(columns[f"top{place + 1}_probability"], order[:, place], rtol=0, atol=5e-7)
    assert columns["top1"] == columns["name"]


def test_classes_of_one_name_have_columns_of_their_own():
    assert [name for name in predictions(names=("cat", "dog", "cat")).columns() if "/" in name] == [
        *("probability/cat (0)", "probability/dog", "probability/cat (2)")
    ]


def test_whole_numbers_stay_whole_in_a_frame():
    pytest.importorskip("pandas")
    frame = predictions(labels=torch.tensor([0, -1, 2, 1, -1, 0])).to_pandas()
    assert (str(frame["class"].dtype), str(frame["label"].dtype)) == ("Int64", "Int64")
    assert frame["label"].isna().tolist() == [False, True, False, False, True, False]
    assert frame["confidence"].tolist() == predictions().columns()["confidence"]


def test_without_pandas_there_is_a_sentence(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    with pytest.raises(
        ImportError, match=r"^to_pandas\(\) needs pandas, which is not installed: pip install pandas\.$"
    ):
        predictions().to_pandas()
