"""A search: as many trials as it is to have, none drawn twice."""

from pathlib import Path

import pytest

from bnn_lightning.studies import rows, running, study


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_search_draws_cells_and_reports_the_best(write, capsys):
    space = {"model.lr": {"low": 0.001, "high": 0.1, "log": True}, "model.method": ["BBB", "LRT"]}
    path = write(search=space, trials=3)
    assert study([str(path)]) == 0
    trials = rows.read(Path("results/tiny.csv"))
    assert len(trials) == 3
    for row in trials:
        assert 0.001 <= float(row["model.lr"]) <= 0.1
        assert row["model.method"] in ("BBB", "LRT")
        assert f"--model.lr {row['model.lr']} --model.method {row['model.method']}" in row["command"]
    assert study([str(path)]) == 0  # all trials are there
    assert rows.read(Path("results/tiny.csv")) == trials
    # More are asked for, where only the rows are left: they are not drawn again.
    for journal in Path("lightning_logs/studies").glob("*.journal*"):
        journal.unlink()
    path.write_text(path.read_text().replace("trials: 3", "trials: 4"))
    assert study([str(path)]) == 0
    more_trials = rows.read(Path("results/tiny.csv"))
    assert len({row["model.lr"] for row in more_trials}) == 4
    capsys.readouterr()
    assert study([str(path), "--report"]) == 0
    lines = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| 0.")]
    best = sorted(more_trials, key=lambda row: float(row["val_nll"]))
    assert [line[0].removeprefix("| ") for line in lines] == [row["model.lr"] for row in best]


def test_a_search_has_as_many_trials_as_it_is_to_have(write, pretended, capsys):
    # Values that CSV and YAML have other words for than Python: null, a small number, on.
    space = {"model.lr_schedule": [None, "LinearDecay"], "model.lr": [0.00001, 0.001], "model.method": ["on", "off"]}
    path = write(search=space, trials=5)
    assert study([str(path)]) == 0
    assert len(pretended) == 5
    assert len({" ".join(words) for words in pretended}) == 5
    assert capsys.readouterr().out.splitlines()[4].startswith("[5/5] ")
    # As many as there are, where more are asked for: none is run twice, and there is an end.
    path.write_text(path.read_text().replace("trials: 5", "trials: 20"))
    assert study([str(path)]) == 0
    assert len(pretended) == len({" ".join(words) for words in pretended}) == 8
    assert capsys.readouterr().out.splitlines()[2].startswith("[8/8] ")
    assert study([str(path), "--report"]) == 0
    text = capsys.readouterr().out
    assert "The best 8 of 8 trials" in text
    assert "| null | 1e-05 | on | " in text
    # Another dimension makes another search, which leaves the rows of this one alone.
    path.write_text(path.read_text().replace("search:\n", "search:\n  model.rho_lr_factor: [1, 10]\n"))
    assert study([str(path), "--report"]) == 0
    assert "of 0 trials" in capsys.readouterr().out
    path.write_text(path.read_text().replace("trials: 20", "trials: 3"))
    assert study([str(path)]) == 0
    assert len(rows.read(Path("results/tiny.csv"))) == 11


def test_a_search_whose_space_changes_takes_its_rows_over(write, pretended):
    path = write(search={"model.lr": {"low": 0.01, "high": 1}, "model.method": ["BBB", "LRT"]}, trials=4)
    assert study([str(path)]) == 0
    trials = rows.read(Path("results/tiny.csv"))
    middle = sorted(float(row["model.lr"]) for row in trials)[2]
    text = path.read_text().replace("low: 0.01", f"low: {middle}").replace("- LRT", "- LRT\n  - Flipout")
    path.write_text(text)
    assert study([str(path)]) == 0
    assert len(pretended) == 6  # the two below the new range count no longer
    assert len(rows.read(Path("results/tiny.csv"))) == 6


def test_a_search_that_was_stopped_in_its_last_trial_goes_on(write, pretended, capsys):
    path = write(search={"model.lr": {"low": 0.001, "high": 0.1}}, trials=1)
    pretended.extend([["an earlier run"]] * 30)  # so that the next is stopped
    assert study([str(path)]) == 130
    (stopped,) = pretended[30:]
    pretended.clear()
    assert study([str(path)]) == 0
    assert pretended == [stopped]
    assert "still running" not in capsys.readouterr().out


def test_a_search_tries_again_what_failed(write, pretended, monkeypatch, capsys):
    path = write(search={"model.lr": {"low": 0.001, "high": 0.1}}, trials=2)
    with monkeypatch.context() as patch:
        patch.setattr(running, "run_task", lambda task, *_: rows.head(task) | {"failed": "no reason", "caveats": ""})
        assert study([str(path)]) == 1
    assert study([str(path)]) == 1
    assert pretended == []
    assert study([str(path), "--retry"]) == 0
    assert len(pretended) == 2
    assert [row.get("failed", "") for row in rows.read(Path("results/tiny.csv"))] == ["", ""]
