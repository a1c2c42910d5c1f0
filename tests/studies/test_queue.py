"""The queue: whoever takes a run has it alone, and what the dead had is run again."""

import subprocess
import sys

import pytest
from optuna.distributions import FloatDistribution

from bnn_lightning.cli import UsageError
from bnn_lightning.studies.queue import Queue


def take_all(queue, wanted="abcd"):
    trials = []
    while (trial := queue.take(wanted)) is not None:
        trials.append(trial)
    return trials


def keys_of(trials):
    return [trial.user_attrs["key"] for trial in trials]


@pytest.mark.parametrize("kind", ["file", "database"])
def test_two_processes_take_everything_once(open_queue, tmp_path, kind):
    storage = "study.journal" if kind == "file" else f"sqlite:///{tmp_path}/study.db"
    first, second = open_queue(storage=storage), open_queue(storage=storage)
    with first.at_work(), second.at_work():
        first.fill("abcd", {}, retry=False, retake=False)
        second.fill("abcd", {}, retry=False, retake=False)
        assert keys_of([first.take("abcd"), second.take("bd"), second.take("bd"), first.take("abcd")]) == list("abdc")
        assert first.take("abcd") is None
        assert second.take("abcd") is None


@pytest.mark.slow
def test_processes_that_take_at_the_same_time_share_a_file(tmp_path):
    code = f"""
import sys, time
from pathlib import Path
from bnn_lightning.studies.queue import Queue
queue = Queue("tiny", {str(tmp_path / "study.journal")!r}, Path({str(tmp_path / "locks")!r}))
keys = [str(number) for number in range(40)]
open(sys.argv[1], "w").close()
while len(list(Path({str(tmp_path)!r}).glob("ready*"))) < 2: time.sleep(0.01)
with queue.at_work():
    queue.fill(keys, {{}}, retry=False, retake=False)
    while (trial := queue.take(keys)) is not None:
        print(trial.user_attrs["key"], flush=True)
        time.sleep(0.05)  # a run, which leaves time for the other process
        queue.finish(trial, {{"val_nll": 1}})
"""
    commands = [[sys.executable, "-c", code, str(tmp_path / f"ready{number}")] for number in range(2)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in commands]
    taken = [process.communicate()[0].split() for process in processes]
    assert sorted(map(int, taken[0] + taken[1])) == list(range(40))
    assert all(taken)


def test_a_journal_that_was_cut_in_its_last_line_goes_on(open_queue, tmp_path):
    first = open_queue()
    with first.at_work():
        first.fill("abc", {}, retry=False, retake=False)
        first.take("abc")
    (journal,) = tmp_path.rglob("*.journal")
    with journal.open("r+b") as file:
        file.truncate(journal.stat().st_size - 20)
    second = open_queue()
    with second.at_work():
        second.fill("abc", {}, retry=False, retake=False)
        assert set(keys_of(take_all(second, "abc"))) <= set("abc")
    assert open_queue() is not None


def test_what_was_put_in_twice_is_taken_once(open_queue):
    queue = open_queue()
    with queue.at_work():
        for key in "abab":  # as two machines would that fill at the same moment
            queue.study.enqueue_trial({}, user_attrs={"key": key})
        assert keys_of(take_all(queue)) == ["a", "b"]


def test_what_a_dead_process_had_is_run_again_and_what_a_living_one_has_is_not(open_queue):
    dead, living, new = open_queue(), open_queue(), open_queue()
    with living.at_work():
        living.fill("abc", {}, retry=False, retake=False)
        with dead.at_work():
            lost_trial = dead.take("abc")
            (dead._folder / dead._lock).unlink()  # as it is where the folder was cleaned; the lock is gone either way
        living_trial = living.take("abc")
        with new.at_work():
            new.fill("abc", {}, retry=False, retake=False)
            assert sorted(keys_of(take_all(new))) == ["a", "c"]
    assert keys_of([lost_trial, living_trial]) == ["a", "b"]


def test_another_places_runs_are_taken_only_when_asked(open_queue):
    far, near = open_queue("far"), open_queue("near")  # another machine, or another folder of this one
    with far.at_work(), near.at_work():
        far.fill("ab", {}, retry=False, retake=False)
        far_trial = far.take("ab")
        near.fill("ab", {}, retry=False, retake=False)
        (trial_b,) = take_all(near)
        assert trial_b.user_attrs["key"] == "b"
        assert len(near.running_hosts()) == 2
        near.finish(trial_b, {"val_nll": 0.5})
        near.fill("ab", {}, retry=False, retake=True)
        (trial_a,) = take_all(near)
        assert trial_a.user_attrs["key"] == "a"
        # They were alive after all: what they did is not lost.
        far.finish(far_trial, {"val_nll": 0.25})
        assert near.rows() == {"a": {"val_nll": 0.25}, "b": {"val_nll": 0.5}}


def test_failed_runs_wait_for_a_retry_and_rows_of_a_file_count_as_done(open_queue):
    queue = open_queue()
    done = {"a": {"val_nll": "0.25", "failed": ""}, "b": {"failed": "no such network"}}
    with queue.at_work():
        queue.fill("abc", done, retry=False, retake=False)
        (trial,) = take_all(queue)
        assert trial.user_attrs["key"] == "c"
        queue.finish(trial, {"failed": "killed"})
        assert [other.value for other in queue.study.trials if other.value is not None] == [0.25]
        queue.fill("abc", done | queue.rows(), retry=False, retake=False)
        assert take_all(queue) == []
        queue.fill("abc", done | queue.rows(), retry=True, retake=False)
        retried = take_all(queue)
        assert keys_of(retried) == ["b", "c"]
        queue.finish(retried[1], {"val_nll": 0.5})
        assert queue.rows()["c"] == {"val_nll": 0.5}


def test_a_storage_that_is_none_is_refused_in_a_sentence(tmp_path):
    with pytest.raises(UsageError, match=r"^--storage nothing://x cannot be used: "):
        Queue("tiny", "nothing://x", tmp_path)


def test_a_search_goes_on_with_what_it_was_at(open_queue):
    spaces = {"model.lr": FloatDistribution(0.001, 0.1)}
    dead, living, new = open_queue(), open_queue(), open_queue()
    with dead.at_work():
        lost_trial = dead.ask(spaces)
    with living.at_work(), new.at_work():
        living.enqueue_lost(retake=False)
        new.enqueue_lost(retake=False)
        assert living.ask(spaces).params == lost_trial.params
        assert new.ask(spaces).params != lost_trial.params


def test_what_a_living_machine_begins_is_not_retaken(write, open_queue):
    spaces = {"model.lr": FloatDistribution(0.001, 0.1)}
    here, there = open_queue("here"), open_queue("there")
    with here.at_work(), there.at_work():
        before = there.ask(spaces)
        here.enqueue_lost(retake=True)
        later = there.ask(spaces)  # what was retaken, or another
        here.enqueue_lost(retake=False)
        assert here.running_hosts() == there.running_hosts() != []
        assert later.number != before.number
