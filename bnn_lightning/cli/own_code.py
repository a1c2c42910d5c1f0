"""A user's own modules: the folders that they are imported from, and the files that their classes came from."""

import inspect
import sysconfig
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

import bnn_lightning
from bnn_lightning.checkpoints.own_modules import importable, place_of
from bnn_lightning.cli.errors import UsageError
from bnn_lightning.cli.settings import class_of

_INSTALLED = {"site-packages", "dist-packages"}


def modules_from(folder: str | None) -> AbstractContextManager[None]:
    """Has modules found in ``folder``, of ``--code``, see :func:`bnn_lightning.checkpoints.own_modules.importable`."""
    if folder is not None and not Path(folder).is_dir():
        raise UsageError(f"--code must be a folder, got {folder}.")
    return importable(folder)


def own_classes(value: Any) -> dict[str, str]:
    """The class paths in a parsed config, or of a verb, that are of neither an installed package nor this one.

    Returns:
        the file of each.
    """
    if isinstance(value, list):
        return {path: file for part in value for path, file in own_classes(part).items()}
    if isinstance(value, type):
        file = _own_file(value)
        return {} if file is None else {f"{value.__module__}.{value.__qualname__}": file}
    if not isinstance(value, Namespace):
        return {}
    found = {path: file for part in vars(value).values() for path, file in own_classes(part).items()}
    if "class_path" in value and (file := _own_file(class_of(value))):
        return {value.class_path: file} | found
    return found


def where_it_was(class_paths: dict[str, str], missing: str) -> str:
    """Where the class ``missing`` was when a checkpoint was saved, and how it is found again; may be empty.

    Args:
        class_paths: with the file of each, as the checkpoint has them.
        missing: the class path that cannot be imported.
    """
    if missing not in class_paths:
        return ""
    file, folder = place_of(class_paths, missing)
    return f" It was in {file} when the checkpoint was saved; --code {folder} finds it there."


def _own_file(part: Any) -> str | None:
    try:
        file = Path(inspect.getfile(part)).resolve()
    except (TypeError, OSError):  # built in
        return None
    standard = [Path(sysconfig.get_paths()[name]).resolve() for name in ("stdlib", "platstdlib")]
    ours = Path(bnn_lightning.__file__).resolve().parent
    # Packages of the system or the user are installed, too, and may lie beside those of the environment.
    is_installed = _INSTALLED & set(file.parts) or any(file.is_relative_to(folder) for folder in (*standard, ours))
    return None if is_installed else str(file)
