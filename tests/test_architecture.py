"""The doors of ARCHITECTURE.md: which room may import which."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import bnn_lightning

PACKAGE = Path(bnn_lightning.__file__).parent
LIBRARIES = {
    "torch",
    "lightning",
    "torchvision",
    "torchmetrics",
    "jsonargparse",
    "rich",
    "yaml",
    "numpy",
    "PIL",
    "scipy",
    "matplotlib",
    "filelock",
    "optuna",
}

# Room: the rooms it may import, and the libraries beside the standard one.
DOORS = {
    "memory": (set(), {"torch"}),
    "compiling": (set(), {"torch"}),
    "noise": ({"compiling", "memory"}, {"torch"}),
    "posteriors": ({"compiling", "memory", "noise"}, {"torch"}),
    "methods": ({"compiling", "memory", "noise", "posteriors"}, {"torch"}),
    "layers": ({"compiling", "posteriors", "methods"}, {"torch"}),
    "compat": ({"methods", "layers"}, {"torch"}),
    "networks": (set(), {"torch"}),
    "norms": (set(), {"torch"}),
    "objective": (set(), {"torch"}),
    "schedules": (set(), {"torch"}),
    "predictive": (set(), {"torch"}),
    "draws": ({"layers", "methods"}, {"torch"}),
    "metrics": (set(), {"torch", "torchmetrics"}),
    "calibration": (set(), {"torch"}),
    "evaluation": ({"calibration", "metrics", "predictive"}, {"torch"}),
    "decisions": ({"calibration"}, {"torch"}),
    "files": (set(), {"filelock"}),
    "randomness": (set(), {"torch", "numpy"}),
    "progress": (set(), {"torch"}),
    "checkpoints": ({"files"}, {"torch"}),
    "sparsity": ({"posteriors", "layers"}, {"torch"}),
    "export": ({"files", "layers", "sparsity"}, {"torch"}),
    "figures": ({"files", "metrics", "predictive"}, {"torch", "matplotlib"}),
    "data": ({"files", "randomness"}, {"torch", "torchvision", "lightning", "numpy", "PIL", "scipy"}),
    "classifier": (
        {
            "posteriors",
            "methods",
            "compiling",
            "layers",
            "memory",
            "networks",
            "norms",
            "objective",
            "schedules",
            "predictive",
            "draws",
            "calibration",
            "evaluation",
            "metrics",
            "checkpoints",
            "progress",
            "randomness",
            "sparsity",
        },
        {"torch", "torchmetrics", "lightning", "jsonargparse"},
    ),
    "callbacks": ({"files", "layers"}, {"torch", "lightning"}),
    "saving": ({"callbacks", "checkpoints", "files", "schedules"}, {"lightning"}),
    "boards": ({"figures", "layers", "posteriors"}, {"torch", "lightning"}),
    "runs": ({"files"}, set()),
    "ensembles": ({"checkpoints"}, set()),
    "pictures": ({"calibration", "classifier", "data", "figures", "sparsity"}, {"torch", "torchvision"}),
    "reports": ({"evaluation", "files", "metrics", "progress", "sparsity"}, {"rich"}),
    "studies": (
        {"checkpoints", "classifier", "cli", "figures", "files", "layers", "networks", "progress", "runs"},
        {"torch", "torchmetrics", "optuna", "scipy", "yaml"},
    ),
    "cli": (
        {"data", "classifier", "callbacks", "checkpoints", "reports", "runs", "methods", "networks", "schedules"}
        | {"sparsity", "export", "figures", "posteriors", "files", "progress", "saving"}
        | {"boards", "draws", "memory", "layers", "metrics", "decisions", "ensembles", "pictures"},
        {"torch", "torchvision", "lightning", "jsonargparse", "rich", "yaml", "numpy", "PIL"},
    ),
}


def room_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(source):
    """(rooms, libraries) that a file's text imports, wherever in it."""
    rooms, libraries = set(), set()
    for node in ast.walk(ast.parse(source)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            top, *rest = name.split(".")
            if top == "bnn_lightning" and rest:
                rooms.add(rest[0])
            elif top in LIBRARIES:
                libraries.add(top)
    return rooms, libraries


def forbidden(path, source):
    allowed_rooms, allowed_libraries = DOORS[room_of(path)]
    rooms, libraries = imports(source)
    return (rooms - allowed_rooms - {room_of(path)}) | (libraries - allowed_libraries)


FILES = [path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE or not path.name.startswith("__")]


def test_every_room_has_doors():
    assert {room_of(path) for path in FILES} == set(DOORS)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_doors(path):
    assert forbidden(path, path.read_text()) == set()


def test_the_door_test_can_fail():
    layers = PACKAGE / "layers.py"
    assert forbidden(layers, "def f():\n    import lightning.pytorch as L") == {"lightning"}
    assert forbidden(layers, "from bnn_lightning import networks") == {"networks"}
    assert forbidden(layers, "from bnn_lightning.data.base import ImageData") == {"data"}


def test_public_names_are_complete_and_sorted():
    def key(name):  # constants, classes, functions, as ruff sorts them: numbers by their value
        parts = re.split(r"(\d+)", name)
        natural = [int(part) if part.isdigit() else part for part in parts]
        return (0 if name.isupper() else 1 if name[0].isupper() else 2, natural)

    public = bnn_lightning.__all__
    assert public == sorted(public, key=key)
    assert all(hasattr(bnn_lightning, name) for name in public)
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    imported = {alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert imported == set(public)


def test_python_m_is_bnn():
    result = subprocess.run(
        [sys.executable, "-m", "bnn_lightning", "--help"], capture_output=True, text=True, check=True
    )
    assert result.stdout.startswith("usage: bnn {fit,validate,test,predict,ensemble,prune,export,study}")
