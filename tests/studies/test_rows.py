"""The file of a study's rows, after somebody has changed it."""

import pytest

from bnn_lightning.cli import UsageError
from bnn_lightning.studies import rows
from bnn_lightning.studies.base import Study
from bnn_lightning.studies.report import report
from tests.studies.helpers import row_of


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        (
            ",0.92,",
            ",92 %,",
            r"line 3: accuracy must be a number, got '92 %'; write what was there, or delete the line",
        ),
        ("a,1,", "a,one,", r"line 3: seed must be a number, got 'one'; "),
        ("a,1,", "a\n", r"line 3: seed must be a number, got None; "),
        (",20 30,", ",20 3O,", r"line 2: labels_by_round must be a number, got '20 3O'; "),
        (",0.97,", ",0,97,", r"line 2: it must have a cell for each column, got 'c' beyond the last one; "),
    ],
)
def test_a_value_that_was_spoilt_is_told_with_its_line(write, tmp_path, old, new, sentence):
    study, file = Study.read(write(cells={"a": {}}, seeds=[0, 1])), tmp_path / "tiny.csv"
    values = {0: 0.97, 1: 0.92}
    measured = [row_of(study, "a", seed, accuracy=value, labels_by_round="20 30") for seed, value in values.items()]
    rows.write(file, study, measured)
    assert "| 94.50" in report(study, tmp_path)[0]
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    with pytest.raises(UsageError, match=rf"tiny\.csv, {sentence}"):
        report(study, tmp_path)
