"""Print the script by which a shell completes verbs, flags and names: bnn completion bash, zsh, tcsh or fish."""

import argparse
from collections.abc import Mapping
from typing import Any

import shtab

from bnn_lightning.cli.entry import first_line, verbs
from bnn_lightning.cli.programs import ProgramParser
from bnn_lightning.shipped import folder_of

_SHELLS = ("bash", "zsh", "tcsh", "fish")
# What a flag takes that names a file or something of the package, by the flag: functions of the shell.
_NAMED = {"--config": "config", "--ckpt_path": "checkpoint"}


def completion(words: list[str], programs: Mapping[str, str]) -> int:
    """Runs ``bnn completion`` with the arguments ``words``; gives the exit code.

    Args:
        words: after the verb.
        programs: see :func:`bnn_lightning.cli.main`.
    """
    parser = ProgramParser(prog="bnn completion", description=(__doc__ or "").strip())
    parser.add_argument("shell", choices=_SHELLS)
    print(script(parser.parse_args(words).shell, programs))
    return 0


def script(shell: str, programs: Mapping[str, str]) -> str:
    """The script for a shell, which has to be made again when the package or its names change."""
    from bnn_lightning.cli.command_line import parser_of
    from bnn_lightning.cli.names import PARTS, names_of

    bnn = argparse.ArgumentParser(prog="bnn", add_help=False)
    for flag in ("--help", "--version", "--debug"):
        bnn.add_argument(flag, action="store_true")
    subparsers = bnn.add_subparsers()
    for name, class_path in verbs().items():
        completed = subparsers.add_parser(name, help=first_line(class_path.rpartition(".")[0]), add_help=False)
        for action in parser_of(class_path, name)._actions:
            flags = [flag for flag in action.option_strings if flag.startswith("--") and not flag.endswith("+")]
            if not flags or getattr(action, "hidden", False):
                continue
            takes: dict[str, Any] = {"nargs": 0} if action.nargs == 0 else {}
            if action.dest in PARTS:
                takes = {"choices": names_of(PARTS[action.dest])}
            argument = completed.add_argument(*flags, help=None, action=_Flag, **takes)
            if kind := _NAMED.get(flags[0]):
                vars(argument)["complete"] = dict.fromkeys(("bash", "zsh"), f"_bnn_{kind}")
    for name, function in programs.items():
        program = subparsers.add_parser(name, help=first_line(function.partition(":")[0]))
        kinds = {"configs": ("config", "study"), "study": ("study",)}.get(name, ())
        if names := [file for kind in kinds for file in _shipped(kind)]:
            program.add_argument("names", nargs="*", choices=names)
    return shtab.complete(bnn, shell=shell, preamble=_functions())  # type: ignore[arg-type]


class _Flag(argparse.Action):
    """A flag that is completed and never parsed."""

    def __call__(self, *_: object) -> None:
        raise NotImplementedError


def _shipped(kind: str) -> list[str]:
    files = folder_of(kind).glob("*.ckpt" if kind == "checkpoint" else "*.yaml")
    return sorted(file.stem for file in files)


def _functions() -> dict[str, str]:
    """Functions of the shells that complete the names of what comes with the package, and files."""
    bash, zsh = [], []
    for kind in dict.fromkeys(_NAMED.values()):
        names = " ".join(_shipped(kind))
        bash.append(f'_bnn_{kind}() {{ compgen -W \'{names}\' -- "$1"; compgen -f -- "$1"; }}')
        zsh.append(f"_bnn_{kind}() {{ _alternative '{kind}s:{kind}:({names})' 'files:file:_files' }}")
    return {"bash": "\n".join(bash), "zsh": "\n".join(zsh)}
