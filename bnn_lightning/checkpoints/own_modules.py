"""Where modules of a user's own are found, and where those of a checkpoint were."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from bnn_lightning.files import relative_to_cwd


@contextmanager
def importable(folder: str | Path | None) -> Iterator[None]:
    """Has modules found in ``folder`` and, after all that is installed, in the current folder.

    No other folder is looked in: a checkpoint names classes, and does not say where they are.

    Raises:
        ValueError: when it is no folder.
    """
    if folder is not None and not Path(folder).is_dir():
        raise ValueError(f"code must be a folder, got {folder}.")
    before = list(sys.path)
    sys.path[:] = [*([str(Path(folder).resolve())] if folder is not None else []), *before, str(Path.cwd())]
    try:
        yield
    finally:
        sys.path[:] = before


def place_of(class_paths: Mapping[str, str], class_path: str) -> tuple[str, str]:
    """The file that a class was in when a checkpoint was saved, and the folder from which it is found there.

    Args:
        class_paths: with the file of each, as the checkpoint has them.
        class_path: one of them.
    """
    file = Path(class_paths[class_path])
    parts = list(file.with_suffix("").parts)
    if parts[-1] == "__init__":
        parts.pop()
    module = class_path.split(".")[:-1]
    depth = len(module) if parts[-len(module) :] == module else 1
    return str(file), relative_to_cwd(Path(*parts[:-depth]))
