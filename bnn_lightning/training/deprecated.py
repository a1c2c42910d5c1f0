"""Names of Python that earlier releases had."""

import warnings
from pathlib import Path
from typing import Any

from bnn_lightning.checkpoints.upgrade import upgraded_arguments
from bnn_lightning.core.methods import Method
from bnn_lightning.networks import Network
from bnn_lightning.training.module import BayesianModule


class BayesianClassifier(BayesianModule):
    """:class:`BayesianModule` under its earlier name, with the settings that it had then."""

    def __init__(self, network: Network, method: Method | None = None, **settings: Any):
        warnings.warn(
            "BayesianClassifier is called BayesianModule now; settings stand in inference=Variational(lr=...) "
            "and sampling=Sampling(test_samples=...).",
            FutureWarning,
            stacklevel=2,
        )
        super().__init__(network, method, **upgraded_arguments(settings))

    @classmethod
    def from_checkpoint(cls, path: str | Path, code: str | Path | None = None) -> BayesianModule:  # type: ignore[override]
        """The trained module in a checkpoint, a BayesianModule; with the arguments and errors of its own."""
        return BayesianModule.from_checkpoint(path, code)
