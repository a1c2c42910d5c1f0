"""Downloads data sets safely while other processes read from, or download into, the same folder."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from bnn_lightning.files import locked


def fetch(root: Path, name: str, is_there: Callable[[], bool], download: Callable[[str], Any]) -> None:
    """Downloads files into ``root`` by ``download(folder)``, unless another process has done so meanwhile.

    One process downloads at a time, into a temporary folder, from which complete files are moved into ``root``: an
    interrupted download leaves nothing that another process could mistake for the data.

    Args:
        root: the folder of the data; the files keep their relative paths.
        name: of the data set, used for the lock file and the temporary folder.
        is_there: whether the files are in ``root``.
        download: downloads them into the folder that it is given.

    Raises:
        UnwritableError: when the lock file cannot be created.
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
                target = root / file.relative_to(folder)
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(file, target)
        finally:
            shutil.rmtree(folder)
