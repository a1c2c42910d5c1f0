"""The probe before training: what people bring, and the sentence that they are told."""

import pytest
import torch
from lightning.pytorch import LightningDataModule
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from bnn_lightning import BBB, BayesianModule, Categorical, bayesianize
from bnn_lightning.training.probe import FirstBatch, first_batch, probe
from tests.training.helpers import fit

IMAGES, LABELS = torch.rand(12, 1, 6, 6), torch.arange(12) % 3


def net(*layers):
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 3), *layers)


class Broken(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(36, 3)

    def forward(self, x):
        return self.fc(x.flatten(1)).no_such_method()


class Returns(nn.Module):
    def __init__(self, make):
        super().__init__()
        self.fc, self.make = nn.Linear(36, 3), make

    def forward(self, x):
        return self.make(self.fc(x.flatten(1)))


class ReadsWeights(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = net()

    def forward(self, x):
        return nn.functional.linear(x.flatten(1), self.inner[1].weight)


def said(network, images=IMAGES, labels=LABELS, smallest=12, num_classes=3, all_labels=None):
    """What the probe says; None where all is well."""
    batch = FirstBatch((images, labels), smallest, all_labels)
    try:
        probe(network, Categorical(), batch, num_classes)
    except ValueError as error:
        return str(error)
    return None


def test_a_network_and_data_that_fit_each_other_pass_and_stay_as_they_were():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(36, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 3)).eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = torch.get_rng_state()
    assert said(network) is None
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not any(module.training for module in network.modules())


@pytest.mark.parametrize(
    ("network", "begins"),
    [
        (
            nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(32, 3)),
            "network must take images 8x1x6x6, but at 0 (Conv2d) raises RuntimeError: Given groups=1, weight of",
        ),
        (net()[1:], "network must take images 8x1x6x6, but at 1 (Linear) raises RuntimeError: mat1 and mat2 shapes"),
        (Broken(), "network must take images 8x1x6x6, but raises AttributeError (test_probe.py, line 26): 'Tensor'"),
        (
            Returns(lambda y: (y, y)),
            "network must return its outputs as one tensor, got tuple of Tensor, Tensor; ",
        ),
        (
            Returns(lambda y: {"logits": y}),
            "network must return its outputs as one tensor, got dict of logits; ",
        ),
        (
            Returns(lambda y: y.view(1, -1)),
            "network must return one row for each image, got outputs 1x24 for images 8x1",
        ),
        (
            Returns(lambda y: y[:, :, None]),
            "network must return logits (batch, classes), got outputs of shape (8, 3, 1)",
        ),
        (Returns(lambda y: y[:, :2]), "network must have 3 outputs, one for each class of the data, got 2; give"),
        (net(nn.Softmax(1)), "network must return logits, got probabilities, which sum to 1: the loss has a softmax"),
        (
            bayesianize(ReadsWeights(), BBB()),
            "network must call its layers, but gives the weight of inner.1 to a function",
        ),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_networks_that_do_not_fit(network, begins):
    assert said(network).startswith(begins)


def test_the_cure_is_in_the_sentence():
    conv = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(32, 3))
    assert said(conv).endswith("; --data.channels 3 converts images that come with 1.")
    assert said(conv, IMAGES.expand(-1, 3, -1, -1)) is None
    assert said(bayesianize(conv, BBB())).endswith("; --data.channels 3 converts images that come with 1.")
    assert "x.permute(0, 3, 1, 2)" in said(conv, torch.rand(12, 6, 6, 3))
    assert said(net(), torch.rand(12, 1, 7, 7)).endswith(
        "49 numbers reach this layer: give it as many inputs, or, where the network is made for another size than 7x7, "
        "set --data.image_size."
    )
    assert said(nn.Linear(3, 3), torch.rand(12, 5)).endswith("5 numbers reach this layer: give it as many inputs.")
    assert said(nn.Linear(3, 3), torch.rand(12)) is not None
    too_large = nn.Sequential(nn.Conv2d(1, 2, 9), nn.Flatten(), nn.Linear(2, 3))
    assert said(too_large).endswith("it is made for another size than 6x6: set --data.image_size.")
    assert said(net().half()).endswith(
        "its weights are float16, the images float32: leave .double(), .half() or dtype out."
    )
    assert "its weights are float64" in said(bayesianize(conv, BBB()).double(), IMAGES.expand(-1, 3, -1, -1))
    assert said(Broken()).endswith("--debug shows the traceback.")


@pytest.mark.parametrize(
    ("labels", "begins"),
    [
        (LABELS + 1, "labels must be from 0 to 2 for a network with 3 outputs, got 1 to 3; class numbers begin at 0."),
        (LABELS - 1, "labels must be from 0 to 2 for a network with 3 outputs, got -1 to 1."),
        (LABELS[:, None], "labels must be class numbers (batch,), got the shape (12, 1); use y.flatten()"),
        (nn.functional.one_hot(LABELS).float(), "labels must be class numbers (batch,), got one-hot or soft labels"),
        (LABELS.float(), "labels must be int64 class numbers, got float32; use y.long()"),
        (LABELS.int(), "labels must be int64 class numbers, got int32; use y.long()"),
    ],
)
def test_labels_that_are_no_class_numbers(labels, begins):
    assert said(net(), labels=labels).startswith(begins)


def test_one_output_for_two_classes_is_told_what_two_take():
    one_output = nn.Sequential(nn.Flatten(), nn.Linear(36, 1))
    assert said(one_output, labels=LABELS.clamp_max(1), num_classes=None) == (
        "labels must be from 0 to 0 for a network with 1 output, got 0 to 1; two classes take two outputs, for the "
        "loss is that of a softmax and not of a sigmoid."
    )


def test_labels_of_the_whole_data_set_count_where_they_are_at_hand():
    assert said(net(), all_labels=torch.tensor([0, 1, 3])).endswith("got 0 to 3.")


@pytest.mark.parametrize(
    ("images", "begins"),
    [
        (torch.zeros(12, 1, 6, 6, dtype=torch.uint8), "images must be floats, got uint8; divide by 255"),
        (IMAGES.double(), "images must be float32, got float64; use x.float()"),
        (
            IMAGES.clone().index_fill_(0, torch.tensor([3]), torch.nan),
            "images must be finite, got nan or inf in 1 of the",
        ),
    ],
)
def test_images_that_are_no_finite_floats(images, begins):
    assert said(net(), images).startswith(begins)


@pytest.mark.parametrize("batch", [{"x": IMAGES, "y": LABELS}, IMAGES, (IMAGES, [0] * 12), (IMAGES,)], ids=type)
def test_batches_that_are_no_pair(batch):
    with pytest.raises(ValueError, match=r"^batch must be \(images, labels\), two tensors that train_dataloader gives"):
        probe(net(), Categorical(), FirstBatch(batch, 12, None), 3)


def test_batch_norm_needs_two_images_also_in_the_last_batch():
    network = nn.Sequential(nn.Flatten(), nn.Linear(36, 3), nn.BatchNorm1d(3))
    for images, smallest in ((IMAGES[:1], 1), (IMAGES, 1)):
        assert "batch norm needs two images or more in each batch" in said(
            network, images, LABELS[: len(images)], smallest
        )
    assert said(net(), IMAGES[:1], LABELS[:1], 1) is None


class Data(LightningDataModule):
    def __init__(self, loader):
        super().__init__()
        self.loader = loader

    def train_dataloader(self):
        return self.loader()


def test_the_first_batch_of_a_data_module():
    everything = TensorDataset(IMAGES, LABELS)
    state = torch.get_rng_state()
    first = first_batch(Data(lambda: DataLoader(everything, 11, shuffle=True)), is_set_up=False)
    assert torch.equal(torch.get_rng_state(), state)
    assert first.batch[0].shape == (11, 1, 6, 6)
    assert first.smallest == 1
    assert torch.equal(first.labels, LABELS)
    assert first_batch(Data(lambda: DataLoader(everything, 11, drop_last=True)), is_set_up=False).smallest == 11
    with pytest.raises(ValueError, match=r"^train_dataloader must give batches, got none"):
        first_batch(Data(lambda: DataLoader(everything, 50, drop_last=True)), is_set_up=False)


class Failing(Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        raise KeyError("picture 7")


def test_a_data_module_that_fails_is_named_with_the_line():
    with pytest.raises(ValueError, match=r"^data module Data raises KeyError \(test_probe.py, line \d+\): 'picture 7'"):
        first_batch(Data(lambda: DataLoader(Failing(), 2)), is_set_up=False)


class NeedsItsTrainer(Data):
    def setup(self, stage):
        self.processes = self.trainer.world_size


def test_a_data_module_that_needs_its_trainer_is_left_for_later():
    assert first_batch(NeedsItsTrainer(lambda: None), is_set_up=False) is None


def test_probabilities_are_refused_without_the_command_line_too():
    network = nn.Sequential(nn.MaxPool2d(4), nn.Flatten(), nn.Linear(64, 10), nn.Softmax(1))
    with pytest.raises(ValueError, match=r"^network must return logits, got probabilities"):
        fit(BayesianModule(network))


class MakesALayer(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.fc = nn.Linear(36, 4), None

    def forward(self, x):
        if self.fc is None:
            self.fc = nn.Linear(4, 3)
        return self.fc(self.body(x.flatten(1)))


class KeepsItsState(nn.Module):
    def __init__(self, detaches):
        super().__init__()
        self.rnn, self.fc, self.hidden, self.detaches = nn.RNN(6, 4, batch_first=True), nn.Linear(4, 3), None, detaches

    def forward(self, x):
        y, hidden = self.rnn(x[:, 0], self.hidden)
        self.hidden = hidden.detach() if self.detaches else hidden
        return self.fc(y[:, -1])


def test_what_a_forward_pass_makes_and_keeps():
    assert said(MakesALayer()).startswith("network must make its layers in __init__, but made fc.weight in forward")
    assert said(KeepsItsState(False)).startswith("network must have gradients, but backward raises RuntimeError")
    kept = KeepsItsState(True)
    assert said(kept) is None
    assert kept.hidden is None  # of eight images, and not of a batch


class AsksForClasses(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.head = nn.Linear(36, 8), nn.Linear(8, 3)

    def forward(self, x):
        y = self.fc(x.flatten(1))
        return self.head(y.relu() if isinstance(self.fc, nn.Linear) else y)


@pytest.mark.filterwarnings("ignore:AsksForClasses.forward asks")
def test_a_network_that_computes_something_else_with_random_layers():
    assert said(AsksForClasses()) is None
    assert said(bayesianize(AsksForClasses(), BBB())).startswith("network must compute the same at its mean weights")


def test_numbers_of_words_are_inputs_of_an_embedding():
    words = nn.Sequential(nn.Embedding(5, 4), nn.Flatten(), nn.Linear(12, 3))
    assert said(words, torch.randint(0, 5, (12, 3))) is None


def test_images_that_were_not_divided_are_remarked_on():
    with pytest.warns(UserWarning, match="^the images of the first batch reach 25"):
        assert said(net(), 250 * IMAGES + 5) is None
