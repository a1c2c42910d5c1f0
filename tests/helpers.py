"""What tests of several rooms share: paths, words of the command line, and files that are written or read by hand."""

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
LENET = str(ROOT / "configs" / "lenet_lrt.yaml")
SMALL = ["--data", "MNIST5k", "--data.train_subset", "600"]  # 480 images to train on, 120 held out

# For a file whose tests call main(): it sets filters of its own, which pytest's would undo.
ON_THE_COMMAND_LINE = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("in_an_empty_folder")]
FOR_NUMBERS = [*ON_THE_COMMAND_LINE, pytest.mark.usefixtures("without_figures")]  # and not for its pictures


def write_idx(path, array):
    """An IDX file, written by numpy alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    path.write_bytes(header + array.astype(np.uint8).tobytes())


def table(path):
    """The rows of a CSV file, each a dictionary of texts."""
    return list(csv.DictReader(path.read_text().splitlines()))


def printed(capsys):
    """What has been printed since this was last asked, errors last."""
    captured = capsys.readouterr()
    return captured.out + captured.err


class Bomb:
    """Whoever unpickles it without care runs code."""

    def __reduce__(self):
        return (print, ("this must not run",))


def run_together(code, count):
    """Runs ``code`` in ``count`` processes that begin it at the same moment; what each has printed."""
    wait = "import sys, time, pathlib\nprint('ready', flush=True)\n"
    wait += "while not pathlib.Path('go').exists(): time.sleep(0.001)\n"
    imports, _, body = code.partition("\n\n")
    processes = [
        subprocess.Popen([sys.executable, "-c", f"{imports}\n{wait}{body}"], stdout=subprocess.PIPE, text=True)
        for _ in range(count)
    ]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    Path("go").touch()
    return [process.communicate(timeout=120)[0] for process in processes]
