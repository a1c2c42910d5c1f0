"""What a checkpoint has trained, without a module of Lightning."""

from dataclasses import MISSING, fields
from inspect import signature
from pathlib import Path

import pytest
import torch

from bnn_lightning import BayesianModule
from bnn_lightning.checkpoints.own_modules import place_of
from bnn_lightning.checkpoints.parts import Parts, Trained
from bnn_lightning.checkpoints.record import KEY, CheckpointError, Record
from bnn_lightning.training.deprecated import BayesianClassifier
from tests.helpers import ROOT

LENET_CKPT = ROOT / "checkpoints" / "lenet_lrt_mnist.ckpt"


def test_parts_are_the_arguments_of_the_module():
    arguments = signature(BayesianModule).parameters
    assert [field.name for field in fields(Parts)] == list(arguments)
    for field in fields(Parts)[1:]:
        default = field.default if field.default_factory is MISSING else field.default_factory()
        assert default == arguments[field.name].default, field.name


def test_what_is_trained_is_what_the_module_has():
    trained, module = Trained.of(Record.read(LENET_CKPT)), BayesianModule.from_checkpoint(LENET_CKPT)
    theirs = module.network.state_dict()
    assert trained.network.state_dict().keys() == theirs.keys()
    assert all(torch.equal(value, theirs[name]) for name, value in trained.network.state_dict().items())
    assert (trained.likelihood, trained.sampling) == (module.likelihood, module.sampling)
    assert not trained.network.training
    assert trained.calibration.keys() == module.calibration.keys()
    for draws, calibration in trained.calibration.items():
        assert torch.equal(calibration.label_prob, module.calibration[draws].label_prob)


def test_a_summary_of_a_later_release_gets_a_sentence():
    record = Record.read(LENET_CKPT)
    later = record.contents[KEY]["training"] | {"perplexity": 1.0}
    with pytest.raises(CheckpointError, match=rf"^a\.ckpt holds perplexity, .* {record.versions['bnn_lightning']}\.$"):
        Record.from_contents(record.contents | {KEY: record.contents[KEY] | {"training": later}}, Path("a.ckpt"))


def test_a_checkpoint_that_was_saved_from_python_says_so():
    contents = Record.read(LENET_CKPT).contents
    record = Record.from_contents(contents | {KEY: contents[KEY] | {"config": None}}, LENET_CKPT)
    with pytest.raises(CheckpointError, match=r"lenet_lrt_mnist\.ckpt was saved from Python and holds no config"):
        Trained.of(record)


def test_the_module_of_a_checkpoint_says_what_is_missing_and_takes_the_folder_of_its_code(tmp_path):
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "own_lenet.py").write_text("import bnn_lightning\nclass Own(bnn_lightning.LeNet): pass\n")
    contents = torch.load(LENET_CKPT, weights_only=True)
    contents[KEY]["config"]["model"]["network"]["class_path"] = "own_lenet.Own"
    contents[KEY]["code"] = {"own_lenet.Own": str(tmp_path / "code" / "own_lenet.py")}
    torch.save(contents, tmp_path / "own.ckpt")
    with pytest.raises(CheckpointError, match=r"^code must be a folder with the module own_lenet, whose own_"):
        BayesianModule.from_checkpoint(tmp_path / "own.ckpt")
    module = BayesianModule.from_checkpoint(tmp_path / "own.ckpt", code=tmp_path / "code")
    assert type(module.network).__name__ == "Own"
    earlier = BayesianClassifier.from_checkpoint(tmp_path / "own.ckpt", code=tmp_path / "code")
    assert type(earlier.network).__name__ == "Own"
    del contents["state_dict"]["network.fc3.bias.mu"]
    torch.save(contents, tmp_path / "own.ckpt")
    with pytest.raises(CheckpointError, match=r"own\.ckpt does not fit the network that its config names"):
        BayesianModule.from_checkpoint(tmp_path / "own.ckpt", code=tmp_path / "code")


@pytest.mark.parametrize(
    ("class_path", "file", "folder"),
    [
        ("mynet.Net", "/home/x/mynet.py", "/home/x"),
        ("pkg.nets.Net", "/home/x/pkg/nets.py", "/home/x"),
        ("pkg.Net", "/home/x/pkg/__init__.py", "/home/x"),
    ],
)
def test_a_class_is_found_from_the_folder_of_its_package(class_path, file, folder):
    assert place_of({class_path: file}, class_path) == (file, folder)
