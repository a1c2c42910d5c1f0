"""``bnn`` as a function: words in, exit code out.

Help and mistyped verbs need no more than the standard library; torch and Lightning are imported when a verb runs.
"""

import ast
import signal
import sys
import textwrap
import traceback
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from shutil import get_terminal_size
from types import MappingProxyType

import bnn_lightning
from bnn_lightning.cli.errors import StoppedError, UsageError
from bnn_lightning.cli.screen import lost_output, unfailing_screen
from bnn_lightning.wording import nearest

_NOT_VERBS = ("__init__", "base")  # files of cli/verbs that hold no verb
_NO_PROGRAMS: Mapping[str, str] = MappingProxyType({})
DEBUG = "--debug"
_COMPLETION = "completion"  # needs to know of all the others
_OTHERS_WORDS = {"train": "fit", "eval": "test", "evaluate": "test", "infer": "predict", "label": "acquire"}


def main(args: list[str] | None = None, programs: Mapping[str, str] = _NO_PROGRAMS) -> int:
    """Runs the command line.

    Args:
        args: the words after ``bnn``; None takes those of this process.
        programs: verbs with a command line of their own: for each name a function, as ``module:function``, that takes
            the words after it and gives an exit code.

    Returns:
        The exit code, 0 when all went well and 2 after one sentence that says what did not.
    """
    words = list(sys.argv[1:] if args is None else args)
    shows_traceback = DEBUG in words
    with unfailing_screen() as screen:
        try:
            code = _run([word for word in words if word != DEBUG] or ["--help"], programs)
        except UsageError as error:
            _say_why(error, f"error: {error}", shows_traceback)
            code = 2
        except (StoppedError, KeyboardInterrupt) as error:
            _say_why(error, str(error) or "stopped.", shows_traceback)
            code = 128 + (error.signum if isinstance(error, StoppedError) else signal.SIGINT)  # as the shell has it
        if sys.stdout is not None:
            sys.stdout.flush()
        if lost := lost_output(screen):
            print(f"bnn: {lost}", file=sys.stderr)
            code = code or 2
    return code


def _run(words: list[str], programs: Mapping[str, str]) -> int:
    name, *words = words
    if name in ("-h", "--help"):
        print(help_page(programs))
    elif name == "--version":
        print(f"bnn_lightning {bnn_lightning.__version__}")
    elif name == _COMPLETION:
        from bnn_lightning.cli.completion import completion

        return completion(words, programs)
    elif name in programs:
        module, _, function = programs[name].partition(":")
        return getattr(import_module(module), function)(words)
    else:
        class_path = _class_path(name, programs)
        from bnn_lightning.cli.command_line import run_verb

        run_verb(class_path, name, words)
    return 0


def _say_why(error: BaseException, sentence: str, shows_traceback: bool) -> None:
    if shows_traceback:
        traceback.print_exception(error)
    print(f"bnn: {sentence}", file=sys.stderr)


def first_error(args: list[str]) -> str:
    """The sentence that ``bnn`` would refuse ``args`` with before it reads any image or writes anything; often none."""
    name, *words = args
    try:
        class_path = _class_path(name, _NO_PROGRAMS)
        from bnn_lightning.cli.command_line import dry_parse

        dry_parse(class_path, name, words)
    except UsageError as error:
        return str(error)
    return ""


def verbs() -> dict[str, str]:
    """The class path of each verb in ``cli/verbs``: ``fit`` is the class ``Fit`` of the file ``fit.py``."""
    names = sorted(path.stem for path in Path(__file__).with_name("verbs").glob("*.py"))
    return {
        name: f"{__package__}.verbs.{name}.{name.title().replace('_', '')}" for name in names if name not in _NOT_VERBS
    }


def help_page(programs: Mapping[str, str]) -> str:
    """What ``bnn --help`` shows: every verb with the first line of its file's docstring."""
    modules = {name: class_path.rpartition(".")[0] for name, class_path in verbs().items()}
    modules |= {name: function.partition(":")[0] for name, function in programs.items()}
    modules[_COMPLETION] = f"{__package__}.completion"
    names = sorted(modules)
    width = min(get_terminal_size().columns, 110)
    indent = 4 + max(map(len, names))
    lines = [
        textwrap.fill(
            first_line(modules[name]), width, initial_indent=f"  {name:{indent - 2}}", subsequent_indent=" " * indent
        )
        for name in names
    ]
    end = (
        "bnn VERB --help shows the options of a verb, bnn --version the version. With --debug, anywhere among the "
        "words, an error's sentence comes with its traceback. A verb of your own goes by its class path, such as "
        "mypackage.count.Count."
    )
    return "\n".join(
        [
            "usage: bnn VERB [options]",
            "",
            textwrap.fill((bnn_lightning.__doc__ or "").partition("\n")[0], width),
            "",
            "Verbs:",
            *lines,
            "",
            textwrap.fill(end, width),
            "",
            "To begin:",
            "  bnn demo",
            "  bnn fit --config lenet_lrt",
            "  bnn test --ckpt_path checkpoints/lenet_lrt/version_0/best.ckpt",
        ]
    )


def _class_path(name: str, programs: Mapping[str, str]) -> str:
    """The class path of the verb that is called ``name``; a name with dots is one already."""
    if "." in name:
        return name
    class_paths = verbs()
    if name in class_paths:
        return class_paths[name]
    names = sorted([*class_paths, *programs, _COMPLETION])
    meant = _OTHERS_WORDS.get(name) or nearest(name, [*names, "--version", "--help"])
    it = f"did you mean {meant}? It" if meant else "it"
    raise UsageError(f"there is no verb {name}; {it} can be {', '.join(names)}, or the class path of your own.")


def first_line(module: str) -> str:
    """The first line of the docstring of a module, which is read and not imported."""
    spec = find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    return (ast.get_docstring(ast.parse(Path(spec.origin).read_text("utf-8"))) or "").partition("\n")[0]
