"""The site: which pages there are is said by the toctrees of index.md and of the index of each folder."""

import os
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging

import bnn_lightning

sys.path.insert(0, str(Path(__file__).parent))
from public_names import left_out

project = "bnn_lightning"
release = version = bnn_lightning.__version__
copyright = "the authors of bnn_lightning; Apache-2.0"

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]

# Pages are plain Markdown that a code host shows, too; tutorials are notebooks as text, which the build runs.
myst_enable_extensions = ["html_image"]
myst_heading_anchors = 4
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_in_temp = True
nb_execution_timeout = 600  # seconds a cell, on a slow core
# Cells that call bnn find that of this Python, and its output is that of a file: no colours, no moving bars.
os.environ["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
os.environ.update(TTY_COMPATIBLE="0", COLUMNS="110")
# IPython keeps a history beside its settings: in a copy.
os.environ["IPYTHONDIR"] = shutil.copytree(Path(__file__).with_name("ipython"), tempfile.mkdtemp(), dirs_exist_ok=True)

# Each method is described once, where its contract is written: what only implements it is left out.
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_inherit_docstrings = False
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
python_use_unqualified_type_names = True
maximum_signature_line_length = 88

# Types of other libraries, whose inventories would have to be downloaded, and of rooms inside the package.
nitpicky = True
nitpick_ignore_regex = [
    ("py:(class|exc)", r"(abc|torch|torchvision|numpy|pandas|PIL|lightning|rich|collections|pathlib|jsonargparse)\..*"),
    ("py:(class|obj)", r"bnn_lightning(\.\w+){2,}"),
    ("py:(class|exc)", "TrainingSummary|Evaluation|CheckpointError|UnwritableError"),
]

html_theme = "furo"
html_title = f"bnn_lightning {release}"
html_show_sphinx = False
html_static_path, html_css_files = ["static"], ["site.css"]
copybutton_exclude = ".linenos, .gp, .go"

# Links that lead out of this folder on a code host, and where the site has the same.
ELSEWHERE = {
    "(../ARCHITECTURE.md": "(architecture.md",
    "(../README.md": "(index.md",
    "[tests/extension](../tests/extension)": "`tests/extension`",
}


def links_within_the_site(app: Sphinx, page: str, source: list[str]) -> None:
    """Replaces links of the pages that a code host shows."""
    for there, here in ELSEWHERE.items():
        source[0] = source[0].replace(there, here)


def keep_colons(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Keeps napoleon from taking what stands before a colon in a property's first sentence for its type."""
    if what in {"attribute", "data", "property"}:
        lines.insert(0, "\\ ")  # reads as nothing


def classes_by_name(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, signature: str | None, returned: str | None
) -> tuple[str | None, str | None]:
    """A default that is a class is shown as in source code; as <class '...'> it would spoil the whole signature."""
    return signature and re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", signature), returned


def formulas_as_they_are(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Escapes the bars of formulas such as log |w|, which would be substitutions; literals have none."""
    for number, line in enumerate(lines):
        parts = line.split("``")
        parts[::2] = [part.replace("|", r"\|") for part in parts[::2]]
        lines[number] = "``".join(parts)


def all_public_names_are_there(app: Sphinx, env: BuildEnvironment) -> None:
    """Warns, which fails the build, of public names that no page of the reference has."""
    kinds = {"class", "data", "exception", "function"}
    documented = [name for name, entry in env.domaindata["py"]["objects"].items() if entry.objtype in kinds]
    for name in left_out(documented):
        logging.getLogger(__name__).warning("%s is public and not in the reference", name)


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("source-read", links_within_the_site)
    app.connect("autodoc-process-signature", classes_by_name)
    app.connect("autodoc-process-docstring", keep_colons, priority=400)  # before napoleon's, 500
    app.connect("autodoc-process-docstring", formulas_as_they_are, priority=600)
    app.connect("env-check-consistency", all_public_names_are_there)
