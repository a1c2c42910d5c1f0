"""Show the configs and studies that come with the package, or copy them to change them."""

import argparse
import shutil
from pathlib import Path

import yaml

import bnn_lightning
from bnn_lightning.cli.errors import UsageError
from bnn_lightning.cli.programs import ProgramParser
from bnn_lightning.files import relative_to_cwd

# Each kind of file: the folder that holds it, and the ending that its names lack.
_KINDS = {"config": ("configs", ".yaml"), "study": ("configs/studies", ".yaml"), "checkpoint": ("checkpoints", ".ckpt")}


def folder_of(kind: str) -> Path:
    """The folder of all configs, studies or checkpoints that come with the package.

    An installed package holds them; a source tree has them beside it, and its package may have modules in a folder of
    the same name.
    """
    package, (name, ending) = Path(bnn_lightning.__file__).parent, _KINDS[kind]
    return package / name if any((package / name).glob(f"*{ending}")) else package.parent / name


def found(name: str, kind: str) -> str:
    """The path of what comes with the package by the bare name ``name``; a file that is called so wins.

    Args:
        name: as the user gave it; anything but a bare name of a file of the package is given back as it is.
        kind: config, study or checkpoint.
    """
    if not name or Path(name).name != name or Path(name).exists():
        return name
    file = folder_of(kind) / f"{name.removesuffix(_KINDS[kind][1])}{_KINDS[kind][1]}"
    return str(file) if file.is_file() else name


def configs(words: list[str]) -> int:
    """Runs ``bnn configs`` with the arguments ``words``; gives the exit code.

    Raises:
        UsageError: when a name is not known, or a file is there already.
    """
    arguments = _parser().parse_args(words)
    files = {path.stem: path for path in sorted(folder_of("config").glob("*.yaml"))}
    studies = {path.stem: path for path in sorted(folder_of("study").glob("*.yaml"))}
    if not arguments.names:
        print("Configs, for bnn fit --config NAME:")
        _print_names({name: _first_comment(path) for name, path in files.items()})
        print("\nStudies, for bnn study NAME:")
        _print_names({name: _title(path) for name, path in studies.items()})
        print("\nbnn configs NAME copies one into this folder, where the copy is the one that counts.")
        return 0
    names = [name.removesuffix(".yaml") for name in arguments.names]
    folder = Path(arguments.to)
    for name in names:
        if name not in files and name not in studies:
            raise UsageError(f"there is no config or study {name}; bnn configs shows what there is.")
        if (target := folder / f"{name}.yaml").exists():
            raise UsageError(f"{target} is there already; move it away, or copy to another folder by --to.")
    for name in names:
        _copy(files.get(name) or studies[name], folder, is_study=name not in files)
    return 0


def _copy(source: Path, folder: Path, is_study: bool) -> None:
    """Copies a file; a study with its base, which it names by a path relative to itself."""
    target = folder / source.name
    folder.mkdir(parents=True, exist_ok=True)
    text = source.read_text("utf-8")
    if is_study:
        base = yaml.safe_load(text)["base"].removeprefix("../")
        text = text.replace(f"base: ../{base}", f"base: {base}")
        if not (folder / base).exists():
            (folder / base).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder_of("config") / base, folder / base)
            print(f"Written: {relative_to_cwd(folder / base)}")
    target.write_text(text, "utf-8")
    print(f"Written: {relative_to_cwd(target)}")


def _first_comment(path: Path) -> str:
    """What a config says it is, in its first line."""
    return path.read_text("utf-8").partition("\n")[0].removeprefix("# ")


def _title(path: Path) -> str:
    """The title of a study."""
    return str(yaml.safe_load(path.read_text("utf-8"))["title"])


def _print_names(lines: dict[str, str]) -> None:
    width = max(map(len, lines))
    for name, line in lines.items():
        print(f"  {name:{width}}  {line}")


def _parser() -> argparse.ArgumentParser:
    parser = ProgramParser(
        prog="bnn configs",
        description="Without names: what comes with the package. bnn fit --config NAME and bnn study NAME take a bare "
        "name; a file of that name in the current folder wins.",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="configs and studies to copy")
    parser.add_argument("--to", default=".", metavar="FOLDER", help="where to (the current folder)")
    return parser
