"""What a verb of ``bnn`` is, and how one is found by the class path of its class."""

from collections.abc import Callable
from importlib import import_module
from typing import ClassVar, Literal

from jsonargparse import Namespace
from lightning.pytorch import Callback

from bnn_lightning.cli.errors import UsageError
from bnn_lightning.cli.session import Session
from bnn_lightning.wording import one_line


class Verb:
    """A verb of ``bnn``: its class attributes say what it needs, and ``run`` does its work.

    A verb of this package is a file in this folder: ``count.py`` with the class ``Count`` is ``bnn count``. One of
    somebody else's is a subclass anywhere: ``bnn mypackage.count.Count``. The first line of the file's docstring is the
    verb's line in help. What ``run`` takes beside the session are flags of the command line, by name, type and default,
    and by its docstring's Args.
    """

    stage: ClassVar[Literal["fit", "validate", "test", "predict"]] = "test"
    """Which images it runs on, by the Trainer's method that they are set up for."""

    needs_checkpoint: ClassVar[bool] = True
    """Whether ``--ckpt_path`` is required. Without one the command line has to name network and data."""

    trains: ClassVar[bool] = False
    """Whether it trains the network.

    Then a checkpoint's whole config is taken over, not only seed, network, data and precision; its images are not
    compared with those that the checkpoint was trained on, which they are; and where the run has gone further than the
    checkpoint, results go into new folders.
    """

    labelled: ClassVar[bool] = True
    """Whether it compares with labels. Then images are refused that the checkpoint may have been trained on."""

    unlabelled: ClassVar[bool] = False
    """Whether it wants no images that have a label: those that ``--data.labels`` names are left out."""

    one_device: ClassVar[bool] = False
    """Whether it runs on one device only."""

    draws_curves: ClassVar[bool] = False
    """Whether it has something for TensorBoard; without, no file is made there."""

    run: Callable[..., None]
    """``run(self, session, ...)`` does the work; ``session`` is a :class:`bnn_lightning.cli.Session`."""

    def check(self, config: Namespace) -> None:
        """Raises a UsageError for settings that it cannot run with, before anything is built or read."""

    def needs_images(self, config: Namespace) -> bool:
        """Whether it runs on images, which are then loaded for its stage."""
        return True

    def callbacks(self, session: Session) -> list[Callback]:
        """More callbacks for the Trainer, which ``session`` does not have yet."""
        return []


def load_verb(class_path: str) -> Verb:
    """The verb of that class.

    Raises:
        UsageError: when it cannot be imported, or is no verb.
    """
    module, _, name = class_path.rpartition(".")
    try:
        verb = getattr(import_module(module), name, None)
    except Exception as error:  # a file of somebody else's can raise anything
        if module.startswith(f"{__package__}."):
            raise  # a fault of this program, whose traceback says where
        raise UsageError(f"{class_path} cannot be imported: {one_line(error)}.") from error
    if not (isinstance(verb, type) and issubclass(verb, Verb) and hasattr(verb, "run")):
        raise UsageError(f"{class_path} is no verb: a subclass of bnn_lightning.cli.Verb with a method run.")
    return verb()
