"""Results as JSON and CSV."""

import threading
from pathlib import Path

import pytest

from bnn_lightning.reporting.prediction_table import PredictionTable
from bnn_lightning.reporting.results import free_name

pytestmark = pytest.mark.usefixtures("in_an_empty_folder")


def test_tables_that_are_written_at_once_have_names_of_their_own():
    names = []

    def write():
        with PredictionTable(Path()) as table:
            table.add_unreadable({"a.png": "damaged"})
            names.append(table.finish().name)

    others = [threading.Thread(target=write) for _ in range(3)]
    with free_name(Path(), "predictions") as name:
        for other in others:
            other.start()
        others[0].join(0.3)
        Path(f"{name}.csv").write_text("mine")
    for other in others:
        other.join()
    assert sorted(names) == ["predictions_1.csv", "predictions_2.csv", "predictions_3.csv"]
    assert Path("predictions.csv").read_text() == "mine"
