"""The report: means, claims, rankings and the figure, from the rows alone."""

import csv
import itertools
import math
import statistics
from dataclasses import replace

import pytest
import torch
from scipy import stats

from bnn_lightning.cli import UsageError
from bnn_lightning.files import write_rows
from bnn_lightning.reporting import figures
from bnn_lightning.reporting.figures.costs import _beside
from bnn_lightning.studies import rows
from bnn_lightning.studies.base import Study
from bnn_lightning.studies.claims import verdict
from bnn_lightning.studies.columns import heading, lower_is_better
from bnn_lightning.studies.lines import Line, cell_text, report_lines
from bnn_lightning.studies.rankings import kendall
from bnn_lightning.studies.report import _markdown, report, write_report
from tests.studies.helpers import GRID, row_of

REPORTED = {
    "cells": {"a": {"model.lr": 1}, "b": {"model.lr": 2}, "c": {"model.lr": 3}, "d": {"model.lr": 4}},
    "seeds": [0, 1, 2],
    "source": "a paper",
    "columns": ["elbo_per_n", "median_accuracy", "range_accuracy", "sparsity"],
    "published": {"accuracy": {"a": 97.5, "b": 98, "d": 99}},
    "rankings": ["accuracy", "elbo_per_n", "nll"],
    "claims": [
        {"says": "a beats b.", "higher": "a", "than": "b"},
        {"says": "b beats a.", "higher": "b", "than": "a"},
        {"says": "c beats d.", "higher": "c", "than": "d"},
    ],
}


@pytest.fixture
def reported(write, tmp_path):
    study = Study.read(write(**REPORTED))
    finished = [
        row_of(study, "a", seed, accuracy=value, elbo_per_n=-3, nll=0.2)
        for seed, value in enumerate((0.97, 0.98, 0.985))
    ]
    finished += [row_of(study, "b", seed, accuracy=value, nll=0.1) for seed, value in enumerate((0.91, 0.93, 0.92))]
    finished[0]["caveats"] = "tempered, posterior not converged"
    finished.append(row_of(study, "c", 0, accuracy="", failed="loss is not finite"))
    finished.append(row_of(study, "d", 0, accuracy=0.1) | {"settings": "of before"})
    rows.write(tmp_path / "results" / "tiny.csv", study, finished)
    return study


def test_the_table_has_means_spreads_and_the_published_figures(reported, tmp_path):
    text, _ = report(reported, tmp_path / "results")
    table, ranked = text.split("Places of the cells, 1 for the best:\n\n")
    lines = {line.split(" | ")[0].removeprefix("| "): line.split(" | ") for line in table.splitlines() if "|" in line}
    accuracies = [97.0, 98.0, 98.5]
    mean, deviation = statistics.mean(accuracies), statistics.stdev(accuracies)
    assert lines["cell"][:6] == ["| cell", "seeds", "accuracy, %", "published", "difference", "elbo/N"]
    assert lines["a"][1:6] == ["3", f"{mean:.2f} ± {deviation:.2f}", "97.5", f"{mean - 97.5:+.2f}", "-3.000"]
    assert lines["a"][6:8] == ["98.00", "97.00 to 98.50"]
    assert lines["a"][8] == "tempered, posterior not converged |"
    places = ranked.splitlines()
    assert places[0] == "| cell | published accuracy, % | accuracy, % | elbo/N | NLL |"
    assert places[2:5] == [
        "| b | 1 | 2 |  | 1 |",  # b has no elbo/N, and the lower NLL is the better one
        "| a | 2 | 1 | 1 | 2 |",
        "| Kendall's tau with the published accuracy, % |  | -1.00 |  | +1.00 |",
    ]
    assert lines["c"][1] == ""
    assert "1 failed: loss is not finite; 2 of 3 seeds not run yet" in lines["c"][-1]
    assert lines["d"][3] == "99"
    assert "not run yet" in lines["d"][-1]
    assert "sparsity" not in text  # a column that nothing has
    assert "1 rows of other settings left out" in text
    assert "6 runs, 6 minutes of training, v, m" in text
    assert "Published: a paper." in text


def test_a_deterministic_network_is_compared_by_its_weights(write):
    claims = [{"says": "a beats b.", "higher": "a", "than": "b", "column": "mean_accuracy"}]
    study = Study.read(write(cells=REPORTED["cells"], claims=claims, score="mean_accuracy"))
    finished = [
        row_of(study, "a", 0, accuracy=0.9) | {"predicted by": "deterministic"},
        row_of(study, "b", 0, accuracy=0.7, mean_accuracy=0.6) | {"predicted by": "25 weight draws"},
    ]
    lines = report_lines(study, finished)
    assert [line.values("mean_accuracy") for line in lines] == [[0.9], [0.6], [], []]
    assert [line.values("one_accuracy") for line in lines] == [[0.9], [], [], []]
    assert "+30.00" in verdict(study, claims[0], lines)


@pytest.mark.parametrize("missing", ["", "nan", "inf"])
def test_runs_that_diverged_are_not_passed_over(write, tmp_path, missing):
    claims = [{"says": "b beats a.", "higher": "b", "than": "a", "column": "nll"}]
    study = Study.read(write(cells=REPORTED["cells"], seeds=[0, 1, 2], claims=claims, columns=["nll"]))
    finished = [row_of(study, "a", seed, accuracy=0.9, nll=nll) for seed, nll in enumerate((0.31, 0.31, missing))]
    finished += [row_of(study, "b", seed, accuracy=0.9, nll=nll) for seed, nll in enumerate((0.5, 0.51, 0.52))]
    rows.write(tmp_path / "results" / "tiny.csv", study, finished)
    text = write_report(study, tmp_path / "results")
    shown = {"": "| 0.3100 (2 of 3) |", "nan": "| nan |", "inf": "| inf |"}
    assert shown[missing] in text
    assert "**Not settled**" in text
    assert ("(95 %, 2 pairs; 1 pair without a value)" in text) == (missing == "")


def test_equal_differences_on_few_images_are_within_their_sampling_error(write):
    study = Study.read(write(cells=REPORTED["cells"], seeds=[0, 1]))
    finished = [row_of(study, "a", seed, accuracy=value) for seed, value in enumerate((0.91, 0.93))]
    finished += [row_of(study, "b", seed, accuracy=value) for seed, value in enumerate((0.9, 0.92))]
    finished = [row | {"test_images": "100"} for row in finished]
    said = verdict(study, {"says": "", "higher": "a", "than": "b"}, report_lines(study, finished))
    half = 100 * stats.norm.ppf(0.975) * ((0.91 * 0.09 + 0.9 * 0.1) / 100) ** 0.5
    assert f"**Not settled**: a - b, accuracy, %: +1.00 ± {half:.2f} (95 %, 2 pairs)" in said


def test_a_line_in_a_name_stays_within_its_cell():
    assert _markdown([["a|b", "c"], ["d\ne", "f"]]) == "| a\\|b | c |\n| --- | --- |\n| d e | f |"


def test_claims_are_settled_by_paired_differences(reported, tmp_path):
    text, lines = report(reported, tmp_path / "results")
    verdicts = [line for line in text.splitlines() if line.startswith("- ")]
    a, b = (97.0, 98.0, 98.5), (91.0, 93.0, 92.0)
    interval = stats.ttest_rel(a, b).confidence_interval(0.95)
    mean = statistics.mean(x - y for x, y in zip(a, b, strict=True))
    measured = f"{mean:+.2f} ± {interval.high - mean:.2f} (95 %, 3 pairs)"
    assert verdicts[0] == f"- a beats b. **Confirmed**: a - b, accuracy, %: {measured}."
    assert verdicts[1].startswith("- b beats a. **Contradicted**: ")
    assert verdicts[2] == "- c beats d. Not run yet."
    others = [replace(line, runs=[row | {"seed": "7"} for row in line.runs]) for line in lines[1:]]
    unpaired = verdict(reported, {"says": "a beats b.", "higher": "a", "than": "b"}, [lines[0], *others])
    assert unpaired == "a beats b. No two runs of a seed to compare."
    on_a_par = {"says": "On a par.", "higher": "a", "than": "b"}
    assert "**Contradicted**" in verdict(reported, on_a_par | {"within": 1}, lines)
    assert "**Confirmed**" in verdict(reported, on_a_par | {"within": 20}, lines)
    assert "**Not settled**" in verdict(reported, on_a_par | {"within": mean}, lines)


def test_groups_are_compared_by_what_else_tells_their_cells_apart(write):
    study = Study.read(write(grid=GRID))
    values = {"BBB, lr 0.1": 0.5, "BBB, lr 1": 0.7, "LRT, lr 0.1": 0.6, "LRT, lr 1": 0.9}
    finished = [row_of(study, name, 0, accuracy=value) for name, value in values.items()]
    claim = {"says": "LRT.", "higher": {"method": "LRT"}, "than": {"method": "BBB"}}
    of_two_pairs = verdict(study, claim, report_lines(study, finished))
    assert "LRT - BBB, accuracy, %: +15.00 ± 63.53 (95 %, 2 pairs)" in of_two_pairs  # 12.706 * sqrt(50) / sqrt(2)
    claim = {"says": "", "higher": "LRT, lr 1", "than": "BBB, lr 1"}
    of_one_pair = verdict(study, claim, report_lines(study, finished))
    half = 100 * stats.norm.ppf(0.975) * ((0.9 * 0.1 + 0.7 * 0.3) / 10_000) ** 0.5
    assert f"+20.00 ± {half:.2f} (one pair)" in of_one_pair
    fewer = [row | {"test_images": "100"} for row in finished]
    of_one_pair = verdict(study, claim, report_lines(study, fewer))
    assert f"+20.00 ± {10 * half:.2f} (one pair)" in of_one_pair
    # Of one pair of anything else nothing can be said, but for what all runs have alike.
    for row in finished:
        row |= {"nll": 0.5 - 0.1 * row["accuracy"], "parameters": 10 * row["accuracy"]}
    assert "**Not settled**" in verdict(study, claim | {"column": "nll"}, report_lines(study, finished))
    assert "**Confirmed**" in verdict(study, claim | {"column": "parameters"}, report_lines(study, finished))


def test_kendall_is_scipys():
    numbers = torch.randn(2, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64).tolist()
    some, others = ({str(place): value for place, value in enumerate(row)} for row in numbers)
    assert kendall(some, others | {"more": 1.0}) == pytest.approx(stats.kendalltau(*numbers).statistic)
    tied = kendall({"a": 1, "b": 1, "c": 2}, {"a": 1, "b": 2, "c": 3})
    assert tied == pytest.approx(stats.kendalltau([1, 1, 2], [1, 2, 3]).statistic)


def test_columns_are_known(reported):
    assert heading("range_accuracy")[0] == "accuracy, %: lowest to highest"
    assert heading("fpr95/mutual_information/NotMNIST") == ("FPR95 NotMNIST by MI, %", 100, 1)
    with pytest.raises(ValueError, match=r"^columns must be among .*; got auroc/speed/NotMNIST\.$"):
        heading("auroc/speed/NotMNIST")
    line = Line(next(reported.all_cells()), [{"sparsity_by_layer": "1-2"}, {"sparsity_by_layer": "3-4"}], "")
    assert cell_text(line, "sparsity_by_layer") == "1-2; 3-4"


def test_means_and_figure_are_written_beside_the_rows(reported, tmp_path):
    text = write_report(reported, tmp_path / "results")
    (a, b, *_) = csv.DictReader((tmp_path / "results" / "tiny_means.csv").read_text().splitlines())
    assert float(a["accuracy mean"]) == statistics.mean((0.97, 0.98, 0.985))
    assert float(b["accuracy stdev"]) == statistics.stdev((0.91, 0.93, 0.92))
    assert (tmp_path / "results" / "tiny.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "results" / "tiny.md").read_text() in text


def test_the_figure_has_accuracy_beside_elbo_and_says_what_has_not_converged(reported, tmp_path, monkeypatch):
    seen = {}

    def compare(path, names, groups, panels, title):
        seen.update(names=names, groups=groups, panels=panels)

    monkeypatch.setattr(figures, "compare", compare)
    write_report(reported, tmp_path / "results")
    accuracy, elbo = seen["panels"]
    assert (seen["names"], seen["groups"]) == (["a", "b"], ["a", "b"])
    assert [[dot.converged for dot in dots] for dots in accuracy.dots] == [[False, True, True], [True, True, True]]
    assert [[dot.value for dot in dots] for dots in elbo.dots] == [[-3, -3, -3], []]
    assert [dot.value for dot in accuracy.dots[1]] == pytest.approx([91, 93, 92])
    assert (accuracy.label, accuracy.published, elbo.published) == ("accuracy, %", {0: 97.5, 1: 98}, {})


def test_the_figure_has_the_score_against_a_cost(write, tmp_path, monkeypatch):
    study = Study.read(write(grid=GRID, against="seconds"))
    finished = [row_of(study, "BBB, lr 0.1", 0, accuracy=0.9), row_of(study, "BBB, lr 1", 0, accuracy=0.8, seconds="5")]
    finished += [row_of(study, "LRT, lr 1", seed, accuracy=0.7 + seed / 100, seconds=str(10 + seed)) for seed in (0, 3)]
    finished[1]["caveats"] = "posterior not converged"
    rows.write(tmp_path / "results" / "tiny.csv", study, finished)
    seen = {}
    monkeypatch.setattr(figures, "quality_against_cost", lambda path, *rest: seen.update(path=path, rest=rest))
    write_report(study, tmp_path / "results")
    panels, *labels = seen["rest"]
    assert labels == ["s a run", "accuracy, %", "Tiny"]
    assert {name: [(cell.name, cell.cost) for cell in cells] for name, cells in panels.items()} == {
        "BBB": [("lr 0.1", 60), ("lr 1", 5)],
        "LRT": [("lr 1", 11.5)],
    }
    assert panels["LRT"][0].mean == pytest.approx(71.5)
    assert [dot.converged for cell in panels["BBB"] for dot in cell.dots] == [True, False]
    monkeypatch.undo()
    write_report(study, tmp_path / "results")
    assert (tmp_path / "results" / "tiny.png").read_bytes().startswith(b"\x89PNG")


def test_numbers_of_near_dots_stand_apart():
    dots = [(0.0, 0.0), (2.0, 1.0), (300.0, 0.0)]
    offsets = _beside(dots)
    ends = [(x + dx, y + dy) for (x, y), (dx, dy) in zip(dots, offsets, strict=True)]
    assert all(math.dist(one, other) > 8 for one, other in itertools.combinations(ends, 2))
    assert offsets[2] == (4.0, 3.0)  # with nothing near it, up and to the right


def test_a_value_is_chosen_for_each_seed_by_the_hold_out(write, tmp_path):
    chosen = {
        "axis": "method",
        "by": "val_nll",
        "among": ["BBB", "LRT"],
        "published": {"a paper": {"A": 0.3, "B": 0.1}},
    }
    grid = {"table": {"A": {}, "B": {}, "C": {}}, "method": {"BBB": {}, "LRT": {}, "null": {"model.method": None}}}
    columns = ["accuracy", "median_accuracy", "sparsity_by_layer"]  # the last two have no mean and standard error
    study = Study.read(write(grid=grid, seeds=[0, 1], score="nll", columns=columns, chosen=chosen))
    measured = {  # val_nll, nll, accuracy
        ("A, BBB", 0): (0.5, 0.2, 0.91),
        ("A, LRT", 0): (0.4, 0.3, 0.92),
        ("A, BBB", 1): (0.1, 0.1, 0.93),
        ("A, LRT", 1): (0.2, 0.0, 0.94),
        ("A, null", 1): (0.0, 9.0, 0.99),  # not among them
        ("B, BBB", 0): (0.1, 0.2, 0.9),
        ("B, LRT", 0): (0.2, 0.3, 0.9),
        ("B, BBB", 1): (0.1, 0.2, 0.9),  # LRT is still to come
    }
    finished = [
        row_of(study, cell, seed, val_nll=val_nll, nll=nll, accuracy=accuracy, sparsity_by_layer="9.0-1.0", caveats="")
        for (cell, seed), (val_nll, nll, accuracy) in measured.items()
    ]
    rows.write(tmp_path / "results" / "tiny.csv", study, finished)
    text, _ = report(study, tmp_path / "results")
    _, table = text.split("For each seed that one of BBB, LRT which has the lowest validation NLL:\n\n")
    assert table.splitlines()[:6] == [
        "| table | seeds | NLL ± standard error | accuracy, % ± standard error | chosen | NLL, a paper |",
        "| --- | --- | --- | --- | --- | --- |",
        "| A | 2 | 0.2000 ± 0.1000 | 92.50 ± 0.50 | LRT 1, BBB 1 | 0.3 |",
        "| B | 1 | 0.2000 | 90.00 | BBB 1 | 0.1 |",
        "| C |  |  |  | not run yet |  |",
        "|  |  |  |  |  | better in 1 of 2 |",
    ]


def test_a_run_that_diverged_is_not_chosen(write, tmp_path):
    chosen = {"axis": "method", "by": "val_nll"}
    grid = {"table": {"A": {}}, "method": {"BBB": {}, "LRT": {}}}
    study = Study.read(write(grid=grid, seeds=[0], score="nll", chosen=chosen))
    finished = [row_of(study, "A, BBB", 0, val_nll="nan", nll=9.0), row_of(study, "A, LRT", 0, val_nll=0.5, nll=0.4)]
    rows.write(tmp_path / "results" / "tiny.csv", study, finished)
    text, _ = report(study, tmp_path / "results")
    assert "| A | 1 | 0.4000 | LRT 1 |" in text


def test_rows_are_read_as_they_were_written(tmp_path):
    texts = [("a\u2028b", "Error(s) in loading\n\tMissing key(s)"), ("c", "")]
    written = [{"cell": cell, "seed": "0", "settings": "1a", "failed": failed} for cell, failed in texts]
    write_rows(tmp_path / "rows.csv", list(written[0]), written)
    assert rows.read(tmp_path / "rows.csv") == written


@pytest.mark.parametrize(
    ("column", "is_lower"),
    [
        ("conformal_width_90", True),
        ("median_val_nll", True),
        ("median_accuracy", False),
        ("fpr95/entropy/Signs", True),
        ("auroc/entropy/Greece", False),  # whose name ends like ece
    ],
)
def test_the_column_and_not_the_name_of_a_set_says_whether_lower_is_better(column, is_lower):
    assert lower_is_better(column) is is_lower


@pytest.mark.parametrize(
    ("chosen", "sentence"),
    [
        ({"axis": "cell"}, r"chosen must have axis and by, perhaps among and published, got "),
        ({"axis": "cell", "by": "speed"}, r"chosen: by must be one of accuracy, .* got speed\."),
        ({"axis": "method", "by": "nll"}, r"chosen names method, which is no axis\."),
        ({"axis": "cell", "by": "nll", "among": ["x"]}, r"chosen names x, which is no value of cell\."),
        (
            {"axis": "cell", "by": "nll", "published": {"p": {"a": "x"}}},
            r"chosen: published: p: a must be a number, got",
        ),
    ],
)
def test_a_choice_that_cannot_be_made_is_refused(write, chosen, sentence):
    with pytest.raises(UsageError, match=sentence):
        Study.read(write(cells={"a": {}}, chosen=chosen))


def test_rows_that_a_spreadsheet_has_saved_are_read_or_refused_in_a_sentence(reported, tmp_path):
    file = tmp_path / "results" / "tiny.csv"
    saved, expected = file.read_bytes(), rows.read(file)
    file.write_bytes(b"\xef\xbb\xbf" + saved)  # its mark of UTF-8 made all cells new ones, which were run again
    assert rows.read(file) == expected
    file.write_bytes(saved.replace(b",", b";"))
    with pytest.raises(UsageError, match=r"tiny\.csv must have the columns seed and settings, "):
        report(reported, tmp_path / "results")
    file.write_bytes(saved.replace(b"loss", b"l\xf6ss"))
    with pytest.raises(UsageError, match=r"tiny\.csv must be a table in UTF-8, got a byte that is none: "):
        report(reported, tmp_path / "results")
