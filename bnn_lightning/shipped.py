"""Configs, studies and trained checkpoints that come with the package, found by their bare names."""

from pathlib import Path

# Each kind of file: the folder that holds it, and the ending that its names lack.
_KINDS = {"config": ("configs", ".yaml"), "study": ("configs/studies", ".yaml"), "checkpoint": ("checkpoints", ".ckpt")}


def folder_of(kind: str) -> Path:
    """The folder of all configs, studies or checkpoints that come with the package.

    An installed package holds them; a source tree has them beside it, and its package may have modules in a folder of
    the same name.
    """
    package, (name, ending) = Path(__file__).parent, _KINDS[kind]
    return package / name if any((package / name).glob(f"*{ending}")) else package.parent / name


def names(kind: str) -> list[str]:
    """The bare names of all configs, studies or checkpoints that come with the package."""
    return sorted(path.stem for path in folder_of(kind).glob(f"*{_KINDS[kind][1]}"))


def found(name: str, kind: str) -> str:
    """The path of what comes with the package by the bare name ``name``; a file here wins, such as a copy of it.

    Args:
        name: as the user gave it; anything but a bare name of a file of the package is given back as it is.
        kind: config, study or checkpoint.
    """
    ending = _KINDS[kind][1]
    bare = name.removesuffix(ending)
    if bare not in names(kind) or Path(name).exists():
        return name
    copy = Path(f"{bare}{ending}")
    return str(copy if copy.exists() else folder_of(kind) / copy)


def beside(checkpoint: Path, name: str) -> Path:
    """The path for a file ``name`` beside a checkpoint; in the current folder, where the package's own are."""
    is_shipped = checkpoint.resolve().parent == folder_of("checkpoint").resolve()
    return Path(name) if is_shipped else checkpoint.with_name(name)
