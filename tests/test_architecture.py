"""The doors of ARCHITECTURE.md: which room may import which."""

import ast
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
    "jinja2",
    "shtab",
    "optuna",
    "pandas",
    "pyarrow",
    "onnx",
    "onnxruntime",
    "litserve",
    "starlette",
    "uvicorn",
}

# Room: the rooms it may import, and the libraries beside the standard one. A room is a wing, a top-level file or a
# part of core.
DOORS = {
    "core.kernels": (set(), {"torch"}),
    "core.ops": (set(), {"torch"}),
    "core.settings": (set(), set()),
    "core.priors": ({"core.kernels", "core.ops", "core.settings"}, {"torch"}),
    "core.posteriors": ({"core.kernels", "core.ops", "core.priors"}, {"torch"}),
    "core.methods": ({"core.kernels", "core.ops", "core.priors", "core.posteriors", "core.settings"}, {"torch"}),
    "core": (
        {
            *("core.kernels", "core.ops", "core.settings", "core.priors", "core.posteriors", "core.methods"),
            *("randomness", "wording"),
        },
        {"torch"},
    ),
    "core.moments": ({"core", "wording"}, {"torch"}),
    "networks": ({"core.moments"}, {"torch"}),
    "files": (set(), {"filelock"}),
    "randomness": (set(), {"torch", "numpy"}),
    "shipped": (set(), set()),
    "wording": (set(), set()),
    "preprocessing": ({"wording"}, {"torch", "numpy", "PIL"}),
    "data": (
        {"files", "preprocessing", "randomness", "wording"},
        {"torch", "torchvision", "lightning", "numpy", "PIL", "pyarrow", "scipy"},
    ),
    "compat": ({"core"}, {"torch"}),
    "layers": (set(), set()),
    "likelihoods": ({"core", "wording"}, {"torch", "torchmetrics", "scipy", "numpy", "pandas"}),
    "inference": ({"core", "likelihoods"}, {"torch"}),
    "evaluation": ({"core", "likelihoods", "randomness", "wording"}, {"torch", "torchmetrics"}),
    "acquisition": ({"likelihoods"}, {"torch"}),
    "compression": ({"core", "wording"}, {"torch"}),
    "checkpoints": (
        {"core", "likelihoods", "inference", "evaluation", "networks", "files", "shipped"},
        {"torch", "jsonargparse", "yaml"},
    ),
    "deployment": (
        {"core", "compression", "files", "checkpoints", "evaluation", "likelihoods", "preprocessing", "wording"},
        {"torch", "onnx", "onnxruntime"},
    ),
    "training": (
        {"checkpoints", "core", "likelihoods", "inference", "evaluation", "compression", "networks", "files"}
        | {"preprocessing", "randomness", "wording"},
        {"torch", "torchmetrics", "lightning"},
    ),
    "reporting": (
        {"checkpoints", "core", "likelihoods", "evaluation", "compression", "training", "data", "files", "wording"},
        {"torch", "torchvision", "lightning", "matplotlib", "pyarrow", "rich", "jinja2"},
    ),
    "simulation": (
        {"acquisition", "core", "data", "evaluation", "files", "inference", "randomness", "training"},
        {"torch"},
    ),
    "cli": (
        {"core", "likelihoods", "inference", "evaluation", "compression", "deployment", "training", "reporting"}
        | {
            "acquisition",
            "simulation",
            "checkpoints",
            "networks",
            "data",
            "files",
            "preprocessing",
            "shipped",
            "wording",
        },
        {"torch", "torchvision", "lightning", "jsonargparse", "rich", "yaml", "numpy", "PIL", "shtab"},
    ),
    "serving": (
        {"checkpoints", "cli", "deployment", "evaluation", "files", "preprocessing", "shipped"},
        {"torch", "numpy", "litserve", "starlette", "uvicorn"},
    ),
    "studies": (
        {"checkpoints", "cli", "core", "training", "reporting", "networks", "files", "shipped", "wording"},
        {"torch", "torchmetrics", "optuna", "scipy", "yaml"},
    ),
}
# Nothing of a room of core is closed to whoever may enter core.
INSIDE_CORE = {room for room in DOORS if room.startswith("core")}


def room_of(parts):
    """The room of a module, from its name below the package: ("core", "ops", "linear") is in core.ops."""
    parts = [part.removesuffix(".py") for part in parts]
    inner = ".".join(parts[:2])
    return inner if inner in DOORS else parts[0]


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
                rooms.add(room_of(rest))
            elif top in LIBRARIES:
                libraries.add(top)
    return rooms, libraries


def forbidden(path, source):
    room = room_of(path.relative_to(PACKAGE).parts)
    allowed_rooms, allowed_libraries = DOORS[room]
    if "core" in allowed_rooms:
        allowed_rooms = allowed_rooms | INSIDE_CORE
    rooms, libraries = imports(source)
    return (rooms - allowed_rooms - {room}) | (libraries - allowed_libraries)


FILES = [path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE or not path.name.startswith("__")]


def test_every_room_has_doors():
    assert {room_of(path.relative_to(PACKAGE).parts) for path in FILES} == set(DOORS)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_room_imports_only_what_its_doors_allow(path):
    assert forbidden(path, path.read_text()) == set()


def test_the_door_test_can_fail():
    layers, ops = PACKAGE / "core" / "layers.py", PACKAGE / "core" / "ops" / "linear.py"
    assert forbidden(layers, "def f():\n    import lightning.pytorch as L") == {"lightning"}
    assert forbidden(layers, "from bnn_lightning import networks") == {"networks"}
    assert forbidden(layers, "from bnn_lightning.data.base import ImageData") == {"data"}
    assert forbidden(ops, "from bnn_lightning.core.methods import LRT") == {"core.methods"}


def floors():
    """The height of each room over those it may enter; a circle has none."""
    heights = {}

    def height(room, below=()):
        assert room not in below, f"a circle: {(*below, room)}"
        if room not in heights:
            rooms = DOORS[room][0] | (INSIDE_CORE - {room} if "core" in DOORS[room][0] else set())
            heights[room] = 1 + max((height(other, (*below, room)) for other in rooms), default=0)
        return heights[room]

    for room in DOORS:
        height(room)
    return heights


def test_there_is_no_circle_and_the_document_says_the_same():
    document = (PACKAGE.parent / "ARCHITECTURE.md").read_text()
    assert max(floors().values()) <= 13
    for room, (rooms, libraries) in DOORS.items():
        row = next(line for line in document.splitlines() if line.startswith(f"| `{room}` |"))
        doors = {word.strip("` ") for word in row.split("|")[3].split(",")} - {"-"}
        assert doors == rooms | libraries - {"torch"}, room


def test_public_names_are_those_of_the_stub_and_can_be_imported():
    tree = ast.parse((PACKAGE / "__init__.pyi").read_text())
    stub = {alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert set(bnn_lightning.__all__) == stub
    assert all(getattr(bnn_lightning, name).__name__ == name or name for name in stub)


LIGHT = """
import sys
import bnn_lightning
assert "torch" not in sys.modules
from bnn_lightning import LRT, LeNet, Sampler, bayesianize, elbo, kl, probabilities, sample_logits
import torch
net = bayesianize(LeNet(), LRT())
x, labels = torch.randn(4, 1, 32, 32), torch.arange(4)
loss = -elbo(torch.nn.functional.cross_entropy(net(x), labels), kl(net), 4)
loss.backward()
probabilities(sample_logits(net, x, 3))
ALSO
print(sorted({name.partition(".")[0] for name in sys.modules} & set(HEAVY)))
"""


@pytest.mark.parametrize("also", ["", "import torchmetrics"])
def test_plain_use_loads_torch_alone(also):
    heavy = ("lightning", "torchmetrics", "matplotlib", "jsonargparse", "torchvision", "rich", "optuna", "scipy")
    result = subprocess.run(
        [sys.executable, "-c", f"HEAVY = {heavy}\n{LIGHT.replace('ALSO', also)}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert ("torchmetrics" in result.stdout) == bool(also)  # the test can fail
    if not also:
        assert result.stdout.strip() == "[]"


def long_files():
    files = [*PACKAGE.rglob("*.py"), *Path(__file__).parent.rglob("*.py")]
    return {path: len(path.read_text().splitlines()) for path in files}


def test_files_fit_on_a_few_screens():
    assert {str(path): lines for path, lines in long_files().items() if lines > 350} == {}


def test_python_m_is_bnn():
    result = subprocess.run(
        [sys.executable, "-m", "bnn_lightning", "--help"], capture_output=True, text=True, check=True
    )
    assert result.stdout.startswith("usage: bnn VERB [options]")
