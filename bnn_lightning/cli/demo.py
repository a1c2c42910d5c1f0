"""Train on real digits without internet, tell digits from letters, and write a report to look at: two minutes."""

import argparse
import io
import json
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from shutil import get_terminal_size

from bnn_lightning.cli.entry import verbs
from bnn_lightning.cli.programs import ProgramParser

# Chosen by the hold-out: its nll and elbo/N of LRT, Flipout and IVON at several rates, never by test images.
_DATA = ["--data", "MNIST5k", "--data.batch_size"]
_LARGE = ["--config", "3conv3fc_lrt", *_DATA, "256", "--trainer.max_epochs", "3"]
_SMALL = ["--config", "lenet_lrt", *_DATA, "64", "--model.inference.lr", "0.01"]
_SMALL += ["--model.inference.rho_lr_factor", "5", "--model.inference.kl_weight.length", "0.5"]
_SMALL += ["--trainer.max_epochs", "10"]


def demo(words: list[str]) -> int:
    """Runs ``bnn demo`` with the arguments ``words``; gives the exit code.

    Raises:
        UsageError: when the digits are not installed, or nothing can be written.
    """
    _parser().parse_args(words)
    started = time.monotonic()
    print("Real handwritten digits, 3,200 to train on, no internet: about two minutes.\n", flush=True)

    print("1. The large network: 3Conv3FC, 1.8 million weights, 3 epochs", flush=True)
    large = _fitted("demo_3conv3fc", _LARGE)
    about_large = _what_formed("3Conv3FC", large)
    _say(about_large)

    print("2. The small network: LeNet, 61,706 weights, 10 epochs", flush=True)
    small = _fitted("demo", _SMALL)
    _say(_what_formed("LeNet", small))

    print("3. LeNet on 1,000 other digits, and on letters, which it has never seen", flush=True)
    about = f"The same digits were given to a large network first. {about_large}"
    words = ["--ckpt_path", str(small), "--data.ood", "[RenderedLetters]", "--report", "--remark", about]
    logs = Path("lightning_logs", *small.parent.parts[-2:])
    with _quiet(lambda line: None):
        _run("test", words)
    _say(_what_test_says(json.loads((logs / "test_mnist5k_best.json").read_text("utf-8"))))

    seconds = time.monotonic() - started
    print(f"Open the report in a browser ({seconds:.0f} s):\n  {(logs / 'report.html').resolve().as_uri()}\n")
    print("Next:")
    print(f"  bnn predict --ckpt_path {small} --data ImageFolder --data.root FOLDER    # your own pictures")
    print("  bnn fit --config lenet_lrt --data ImageFolder --data.root FOLDER         # train on them")
    print("  bnn configs                                                              # what else there is")
    return 0


def _say(text: str) -> None:
    width = min(get_terminal_size().columns, 110)
    print(textwrap.fill(text, width, initial_indent="   ", subsequent_indent="   "), end="\n\n", flush=True)


def _fitted(name: str, words: list[str]) -> Path:
    """Trains; gives the checkpoint."""
    screen = sys.stdout
    with _quiet(lambda line: print(f"   {_shortened(line)}", file=screen, flush=True)):
        _run("fit", [*words, "--name", name, "--trainer.enable_progress_bar", "false"])
    versions = Path("checkpoints", name).glob("version_*/best.ckpt")
    return max(versions, key=lambda path: int(path.parent.name.removeprefix("version_")))


def _run(verb: str, words: list[str]) -> None:
    from bnn_lightning.cli.command_line import run_verb

    run_verb(verbs()[verb], verb, words)


def _what_formed(name: str, checkpoint: Path) -> str:
    """Whether the posterior of a checkpoint has formed, in words, by what it was trained on and its hold-out."""
    from bnn_lightning.checkpoints.record import Record
    from bnn_lightning.checkpoints.summary import NOT_CONVERGED

    record = Record.read(checkpoint)
    summary = record.training
    assert summary is not None
    assert summary.elbo_per_n is not None
    right = f"{name} predicts {record.validation['val/accuracy']:.1%} of the hold-out right"
    guessing = f"{summary.uninformed_nll:.2f}"
    if NOT_CONVERGED in summary.caveats:
        return (
            f"{right}, but its posterior has not formed: its weights cost {summary.kl_per_n:,.0f} nats an image "
            f"(KL/N), where guessing costs {guessing}. {summary.num_train:,} images are too few for so many weights, "
            "and its uncertainty is not to be trusted."
        )
    return (
        f"{right}, and its posterior has formed: elbo/N {summary.elbo_per_n:.2f} nats is above the -{guessing} of "
        "guessing."
    )


def _what_test_says(results: dict) -> str:
    measured, letters = results["predictions"]["samples"], results["ood"]["RenderedLetters"]["entropy"]
    return (
        f"{measured['accuracy']:.1%} right; of the 90 % it is surest of, {1 - measured['risk_at_90']:.1%}. A letter is "
        f"more uncertain than a digit in {letters['auroc']['value']:.0%} of all pairs (50 % is chance)."
    )


def _shortened(line: str) -> str:
    """An epoch's line without what only a second look needs."""
    return "  ".join(part for part in line.split("  ") if not part.startswith(("accuracy", "kl/N")))


@contextmanager
def _quiet(say: Callable[[str], None]) -> Iterator[None]:
    """Has a verb print into nothing, but for the lines of its epochs."""
    with redirect_stdout(_Epochs(say)):
        yield


class _Epochs(io.TextIOBase):
    """A stream that passes on the lines that begin with an epoch."""

    encoding = "utf-8"

    def __init__(self, say: Callable[[str], None]):
        self._say, self._line = say, ""

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            if line.startswith("epoch "):
                self._say(line)
        return len(text)


def _parser() -> argparse.ArgumentParser:
    return ProgramParser(
        prog="bnn demo",
        description="Trains 3Conv3FC and LeNet on MNIST5k (pip install 'bnn_lightning[demo]' brings its digits), tests "
        "LeNet on other digits and on letters drawn in fonts, and writes report.html.",
    )
