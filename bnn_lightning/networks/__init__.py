"""Network architectures in plain, deterministic ``torch.nn`` layers; ``bayesianize`` makes them Bayesian."""

from bnn_lightning.networks.base import Activation, Network, multiply_adds
from bnn_lightning.networks.classics import MLP, AlexNet, TabularMLP, ThreeConvThreeFC
from bnn_lightning.networks.lenet import LeNet, LeNet5Caffe, LeNet300100
from bnn_lightning.networks.residual import ResNet18, ResNet20, WideResNet
from bnn_lightning.networks.study_nets import BaseCNN, BatchBALDNet, BatchNormMLP, CIFARNet, SKNet
from bnn_lightning.networks.transformer import ViTTiny

__all__ = [
    "MLP",
    "Activation",
    "AlexNet",
    "BaseCNN",
    "BatchBALDNet",
    "BatchNormMLP",
    "CIFARNet",
    "LeNet",
    "LeNet5Caffe",
    "LeNet300100",
    "Network",
    "ResNet18",
    "ResNet20",
    "SKNet",
    "TabularMLP",
    "ThreeConvThreeFC",
    "ViTTiny",
    "WideResNet",
    "multiply_adds",
]
