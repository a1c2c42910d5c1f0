"""Give a checkpoint's last layer a posterior by Laplace's approximation, and write it as another checkpoint."""

from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import LightningDataModule

from bnn_lightning.checkpoints.record import KEY, without_training_state, write_checkpoint
from bnn_lightning.cli.checkpoint import config_of
from bnn_lightning.cli.errors import UsageError
from bnn_lightning.cli.results import findings_text
from bnn_lightning.cli.session import Session
from bnn_lightning.cli.settings import class_of
from bnn_lightning.cli.verbs.base import Verb
from bnn_lightning.core.conversion import load_plain_state_dict, to_plain
from bnn_lightning.core.input_format import in_format_for
from bnn_lightning.data.source import DataSource
from bnn_lightning.files import as_word, relative_to_cwd
from bnn_lightning.inference import Laplace as LaplaceInference
from bnn_lightning.inference.gradient_descent import GradientDescent
from bnn_lightning.training.batches import batches_on
from bnn_lightning.training.facts import loss_weights
from bnn_lightning.training.loading import load_record, module_of
from bnn_lightning.training.module import BayesianModule
from bnn_lightning.training.runs import Run


class Laplace(Verb):
    """Computes the posterior of the last layer over the training images, and calibrates what it predicts."""

    stage = "fit"  # training images, and both halves of the hold-out
    one_device = True

    def run(
        self,
        session: Session,
        structure: Literal["full", "kron", "diag"] = "full",
        layer: str | None = None,
        prior_precision: float | None = None,
        temperature: float = 1.0,
        max_gigabytes: float = 4.0,
        output: str | None = None,
    ) -> None:
        """Gives the last layer a posterior.

        Args:
            structure: of the curvature: full, kron (a Kronecker product) or diag.
            layer: the linear layer that gives the outputs; null is the last one.
            prior_precision: of the prior over its weights; null is the one of highest marginal likelihood.
            temperature: by which the covariance is multiplied.
            max_gigabytes: of memory that this may take.
            output: the file to write; null is laplace.ckpt in folders of its own.
        """
        given = session.model
        if given.members > 1:
            raise UsageError("--ckpt_path is of an ensemble; name the checkpoint of one of its networks.")
        if output is not None and Path(output).exists():
            raise UsageError(f"--output {output} is there already; name another file.")
        inference = LaplaceInference(
            structure=structure,
            layer=layer,
            prior_precision=prior_precision,
            temperature=temperature,
            max_gigabytes=max_gigabytes,
            **_how_it_was_trained(session),
        )
        load_record(given, session.checkpoint)
        config = _config(session, inference)
        model = module_of(BayesianModule, config)
        model.know_labels(session.checkpoint.data or {})
        load_plain_state_dict(model.network, to_plain(given.network).state_dict())
        if not isinstance(session.datamodule, DataSource):
            session.datamodule.prepare_data()
            session.datamodule.setup("fit")
        before = _validation_nll(session, given)
        calibrations = _form_posterior(session, model)
        after = _validation_nll(session, model)
        contents = without_training_state(session.checkpoint.contents)
        contents["state_dict"] = {name: value.cpu().contiguous() for name, value in model.state_dict().items()}
        contents[KEY] = contents[KEY] | {
            "config": config,
            "validation": {},
            "calibration": {draws: calibration.record() for draws, calibration in calibrations.items()},
        }
        file = _own_run(session).checkpoints / "laplace.ckpt" if output is None else Path(output)
        write_checkpoint(contents, file)
        session.print(findings_text(inference.findings(model.network)))
        if before is not None and after is not None:
            session.print(f"Validation NLL: {before:.4f} before, {after:.4f} after")
        session.print(f"Written: {relative_to_cwd(file)}")
        session.print(f"Next: bnn test --ckpt_path {as_word(file)}")


def _how_it_was_trained(session: Session) -> dict[str, Any]:
    """The settings of the optimiser that trained the checkpoint, where Laplace has them too."""
    inference = session.model.inference
    names = ("lr", "optimizer", "lr_schedule")
    return {name: getattr(inference, name) for name in names} if isinstance(inference, GradientDescent) else {}


def _config(session: Session, inference: LaplaceInference) -> dict[str, Any]:
    """The checkpoint's config with Laplace as the inference, and with the sampling of the command line."""
    given: Any = config_of(session.checkpoint)
    settings = {name: value for name, value in asdict(inference).items() if name not in ("optimizer", "lr_schedule")}
    if issubclass(class_of(session.config.model.inference), GradientDescent):
        settings |= {name: given["model"]["inference"]["init_args"][name] for name in ("optimizer", "lr_schedule")}
    own = {
        "inference": {"class_path": "bnn_lightning.Laplace", "init_args": settings},
        "method": None,
        "only": "*",
        "init_from": None,
        "compile": False,
        "sampling": session.config.model.sampling.as_dict(),
    }
    return given | {"model": given["model"] | own}


def _own_run(session: Session) -> Run:
    """Folders beside those of the checkpoint's run; they are new already where it lies in none."""
    return Run.reserve(session.run.root, f"{session.run.name}_laplace") if session.is_in_own_folders else session.run


def _form_posterior(session: Session, model: BayesianModule) -> dict[str, Any]:
    """Forms the posterior of ``model`` on the training images; gives its calibrations."""
    trainer, data = session.trainer, session.datamodule
    device = trainer.strategy.root_device
    model.to(device)

    loader: Any = data.train_dataloader()
    batches = (
        (in_format_for(model.network, x), y) for x, y in batches_on(device, loader, data, trainer.precision_plugin)
    )
    likelihood = model.likelihood.for_training(loss_weights(data, device))
    with trainer.precision_plugin.forward_context():
        model.inference.after_fit(model.network, batches, likelihood)
    model.trainer = trainer
    return model.calibrated(data)


def _validation_nll(session: Session, model: BayesianModule) -> float | None:
    """The NLL of as many samples as test draws, on the half of the hold-out that selects; None without one."""
    if type(session.datamodule).val_dataloader is LightningDataModule.val_dataloader:
        return None
    model.val_samples = model.test_samples
    session.trainer.validate(model, session.datamodule, verbose=False)
    if not model.val_metrics.nll.count:
        return None
    return model.val_metrics.compute()["nll"]
