"""Show the configs, studies and trained networks that come with the package, or copy configs to change them."""

import argparse
import shutil
from pathlib import Path

import yaml

from bnn_lightning.cli.errors import UsageError
from bnn_lightning.cli.programs import ProgramParser
from bnn_lightning.files import expanded, relative_to_cwd
from bnn_lightning.shipped import folder_of, names


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
        print(f"\nTrained networks, for bnn test --ckpt_path NAME: {', '.join(names('checkpoint'))}.")
        print("\nbnn configs NAME copies a config or study into this folder, where the copy is the one that counts.")
        return 0
    asked = [name.removesuffix(".yaml") for name in arguments.names]
    folder = expanded(arguments.to)
    for name in asked:
        if name not in files and name not in studies:
            raise UsageError(f"there is no config or study {name}; bnn configs shows what there is.")
        if (target := folder / f"{name}.yaml").exists():
            raise UsageError(f"{target} is there already; move it away, or copy to another folder by --to.")
    try:
        for name in asked:
            _copy(files.get(name) or studies[name], folder, is_study=name not in files)
    except OSError as error:
        raise UsageError(f"--to must be a folder that can be written, got {folder}: {error.strerror}.") from error
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
