"""The learner of a labelling loop: trained on few images without a Trainer, and asked about many."""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from bnn_lightning.core.input_format import in_format_for
from bnn_lightning.core.whole_network import bayesian_layers
from bnn_lightning.data import BatchLoader, ImageData, Images
from bnn_lightning.data.loader import EpochSampler
from bnn_lightning.evaluation.draws import Ensemble
from bnn_lightning.evaluation.pool import pool_outputs
from bnn_lightning.evaluation.sampler import Sampler
from bnn_lightning.inference import Step, TrainingFacts
from bnn_lightning.randomness import combined_seed
from bnn_lightning.training.module import BayesianModule


@dataclass
class Learner:
    """One network, or several that begin with weights of their own, trained anew whenever there are more labels.

    Args:
        make: a new module, whose weights torch's generator draws.
        members: how many networks there are.
        data: how images are augmented and normalised, and the size of batches.
        steps: of the optimiser, in each training, rounded up to whole epochs. An epoch has as many batches as it has
            to, of one size but the last.
        seed: of initial weights, noise and the order of images.
        continued: whether training goes on from the last weights instead of new ones.
    """

    make: Callable[[], BayesianModule]
    members: int
    data: ImageData
    steps: int
    seed: int
    continued: bool
    modules: list[BayesianModule] | None = None
    """Of the last training."""

    def fit(self, images: Images, step: int) -> None:
        """Trains on all images that have a label; ``step`` is the number of the training."""
        before = self.modules
        self.modules = []
        with torch.random.fork_rng([]):
            for member in range(self.members):
                torch.manual_seed(combined_seed(self.seed, step, member))
                module = before[member] if self.continued and before is not None else self.make()
                self._train(module, images, combined_seed(self.seed, step, member, 1))
                self.modules.append(module)

    def _train(self, module: BayesianModule, images: Images, seed: int) -> None:
        net, inference = module.network, module.inference
        likelihood = module.likelihood.for_training()
        # Nearly equal in size: 100 images in batches of 32 would leave 4, whose noisy gradients spoil a step in four.
        number_of_batches = -(-len(images) // self.data.batch_size)
        loader = self._loader(images, -(-len(images) // number_of_batches), seed, self.data.augmentation)
        steps = len(loader)
        epochs = -(-self.steps // steps)
        optimizer = inference.make_optimizer(net, TrainingFacts(len(images), epochs, can_fuse=True))
        scheduler: Any = inference.make_scheduler(optimizer, epochs)
        by_steps = scheduler is not None and scheduler.get("interval") == "step"
        inference.start(optimizer, steps * epochs)
        module.train()
        for epoch in range(epochs):
            loader.sampler.set_epoch(epoch)
            for number, (x, y) in enumerate(loader):
                terms = inference.loss(
                    net, in_format_for(net, x), y, likelihood, Step(epoch, number, steps, epochs, len(images))
                )
                optimizer.zero_grad()
                terms.loss.backward()
                optimizer.step()
                if by_steps:
                    scheduler["scheduler"].step()
            if scheduler is not None and not by_steps:
                scheduler["scheduler"].step()
            inference.after_epoch(net)
        inference.after_fit(net, ((in_format_for(net, x), y) for x, y in loader), likelihood)
        module.eval()

    def _loader(self, images: Images, batch_size: int, seed: int | None, augmentation: Any = None) -> BatchLoader:
        sampler = EpochSampler(len(images), seed is not None, seed or 0)
        given = () if augmentation is None else (augmentation,)
        return BatchLoader(images, batch_size, self.data.mean, self.data.std, sampler, *given)

    def outputs(self, images: Images) -> Tensor:
        """Logits ``(samples, images, classes)``, see :func:`sampler_of`."""
        assert self.modules is not None
        sampler = sampler_of(self.modules)

        def batches() -> Iterator[Tensor]:
            for x, _ in self._loader(images, self.data.eval_batch_size, None):
                yield x

        return pool_outputs(sampler, batches(), len(images))


def sampler_of(modules: Sequence[BayesianModule]) -> Sampler:
    """Samples of what one module predicts, or several together, as their settings say.

    Dropout that gave each training image a mask of its own draws masks for all images here: draws of the same
    posterior (:class:`~bnn_lightning.MCDropout`, ``shared``).
    """
    nets, sampling = [_with_shared_masks(module.network) for module in modules], modules[0].sampling
    net = nets[0] if len(nets) == 1 else Ensemble(nets)
    return Sampler(net, modules[0].test_samples, sampling.draws, sampling.seed, sampling.chunk)


def _with_shared_masks(net: nn.Module) -> nn.Module:
    if not any(getattr(layer.method, "shared", True) is False for layer in bayesian_layers(net)):
        return net
    net = copy.deepcopy(net)
    for layer in bayesian_layers(net):
        if getattr(layer.method, "shared", True) is False:
            layer.method = replace(layer.method, shared=True)  # type: ignore[type-var]
    return net
