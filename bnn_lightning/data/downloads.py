"""Downloads into a folder that other processes read from, or download into, at the same time."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from bnn_lightning.files import locked


def fetch(root: Path, name: str, is_there: Callable[[], bool], download: Callable[[str], Any]) -> None:
    """Has ``download(folder)`` bring files that belong below ``root``, unless by now they are there.

    One process does so at a time, in a folder of its own, from where whole files move to their places: a download that
    is killed leaves nothing that another process would take for the data.
    """
    with locked(root / f".{name}.lock"):
        for unfinished in root.glob(f".{name}.unfinished*"):
            shutil.rmtree(unfinished)
        if is_there():
            return
        folder = Path(mkdtemp(dir=root, prefix=f".{name}.unfinished"))
        try:
            download(str(folder))
            for file in [path for path in folder.rglob("*") if path.is_file()]:
                place = root / file.relative_to(folder)
                place.parent.mkdir(parents=True, exist_ok=True)
                os.replace(file, place)
        finally:
            shutil.rmtree(folder)
