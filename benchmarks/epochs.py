"""An epoch of LeNet under LRT on 48,000 MNIST images: ours, and a pipeline as it is commonly written."""

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

from bnn_lightning import LRT, BayesianClassifier, LeNet
from bnn_lightning.data import MNIST

COMMON = "common pipeline"
TRAINING = 48_000
QUIET = {"enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}


def candidates(root):
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    return {
        COMMON: common(root),
        "bnn fit": ours(root, compiled=False),
        "bnn fit, compiled": ours(root, compiled=True),
    }


def ours(root, compiled):
    """One more epoch of ``Trainer.fit`` at each call, with TensorBoard, without validation."""
    data = MNIST(root, image_size=32)
    data.setup("fit")
    classifier = BayesianClassifier(LeNet(), LRT(), compile=compiled)

    def run():
        logger = TensorBoardLogger("lightning_logs", "benchmark", "epoch")
        trainer = Trainer(max_epochs=1, accelerator="cpu", limit_val_batches=0, logger=logger, **QUIET)
        trainer.fit(classifier, data)

    return run


class OneByOne(Dataset):
    """Images as torchvision's data sets give them: each goes through PIL and its transforms when it is asked for."""

    def __init__(self, images):
        self.pixels, self.labels = images.pixels[:, 0].numpy(), images.labels.tolist()
        self.transform = transforms.Compose([transforms.Resize((32, 32)), transforms.ToTensor()])

    def __len__(self):
        return TRAINING

    def __getitem__(self, index):
        return self.transform(Image.fromarray(self.pixels[index])), self.labels[index]


def common(root):
    """Per-image transforms, a DataLoader, textbook layers, activation before pooling, Adam: plain PyTorch."""
    loader = DataLoader(OneByOne(MNIST(root).load_train()), batch_size=256, shuffle=True)
    net, divergence = rivals.textbook_lrt(activation_first(LeNet()))
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)

    def run():
        for x, labels in loader:
            loss = F.cross_entropy(net(x), labels) + divergence() / TRAINING
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return run


def activation_first(net):
    """The same chain with each activation before the pooling that follows the convolution."""
    layers = dict(net.named_children())
    names = list(layers)
    for number in ("1", "2"):
        place = names.index(f"pool{number}")
        names[place], names[place + 1] = names[place + 1], names[place]
    return torch.nn.Sequential(OrderedDict((name, layers[name]) for name in names))
