"""Cells of shell commands, their output in one piece: IPython's own cuts it every 100 bytes, in the midst of lines."""

from subprocess import PIPE, STDOUT, run

from IPython import get_ipython


def bash(line: str, cell: str) -> None:
    """Runs a cell by bash; the first command that fails ends it, and the build."""
    done = run(["bash", "-e"], input=cell, stdout=PIPE, stderr=STDOUT, text=True)
    print(done.stdout, end="")
    done.check_returncode()


get_ipython().register_magic_function(bash, "cell", "bash")
