"""Functions that run an epoch of LeNet with LRT on 48,000 MNIST images: by ``bnn fit``, and by a common pipeline."""

import logging
from collections import OrderedDict

import rivals
import torch
import torch.nn.functional as F
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from bnn_lightning import LRT, BayesianModule, LeNet
from bnn_lightning.data import MNIST

COMMON = "common pipeline"
NUM_TRAIN = 48_000
QUIET = {"enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}


def candidates(root):
    """By name, functions that train one epoch."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    return {
        COMMON: common(root),
        "bnn fit": ours(root, compiled=False),
        "bnn fit, compiled": ours(root, compiled=True),
    }


def ours(root, compiled):
    """A function that trains one more epoch by ``Trainer.fit``, with TensorBoard, without validation."""
    data = MNIST(root, image_size=32)
    data.setup("fit")
    model = BayesianModule(LeNet(), LRT(), compile=compiled)

    def run():
        logger = TensorBoardLogger("lightning_logs", "benchmark", "epoch")
        trainer = Trainer(max_epochs=1, accelerator="cpu", limit_val_batches=0, logger=logger, **QUIET)
        trainer.fit(model, data)

    return run


class PerImageDataset(Dataset):
    """Images as torchvision's data sets serve them: one by one through PIL and the transforms."""

    def __init__(self, images):
        self.pixels, self.labels = images.pixels[:, 0].numpy(), images.labels.tolist()
        self.transform = transforms.Compose([transforms.Resize((32, 32)), transforms.ToTensor()])

    def __len__(self):
        return NUM_TRAIN

    def __getitem__(self, index):
        return self.transform(Image.fromarray(self.pixels[index])), self.labels[index]


def common(root):
    """A function that trains one epoch in plain PyTorch: per-image transforms, a DataLoader, textbook layers, Adam."""
    loader = DataLoader(PerImageDataset(MNIST(root).load_train()), batch_size=256, shuffle=True)
    net, divergence = rivals.textbook_lrt(activation_first(LeNet()))
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)

    def run():
        for x, labels in loader:
            loss = F.cross_entropy(net(x), labels) + divergence() / NUM_TRAIN
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return run


def activation_first(net):
    """LeNet with each activation before the pooling layer instead of after it, as is common."""
    layers = dict(net.named_children())
    names = list(layers)
    for number in ("1", "2"):
        pool = names.index(f"pool{number}")
        names[pool], names[pool + 1] = names[pool + 1], names[pool]
    return torch.nn.Sequential(OrderedDict((name, layers[name]) for name in names))
