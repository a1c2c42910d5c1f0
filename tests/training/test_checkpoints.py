"""Checkpoints hold plain values, and files of others are refused before any code of theirs runs."""

import pickle
from pathlib import Path

import pytest
import torch

from bnn_lightning import LRT, BayesianModule, kl
from bnn_lightning.checkpoints.record import KEY, CheckpointError, check_format, read_checkpoint, write_checkpoint
from bnn_lightning.cli import main
from tests.helpers import Bomb
from tests.training.helpers import fit, tiny

CONFIG = {"seed_everything": 0, "name": None, "model": {}, "data": {}, "trainer": {}}
pytestmark = pytest.mark.usefixtures("in_an_empty_folder")
sets_filters_of_its_own = pytest.mark.filterwarnings("ignore")  # main() does, which pytest's would undo


def test_checkpoint_holds_plain_values_and_restores(tmp_path):
    model = tiny(LRT())
    trainer = fit(model)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    checkpoint = read_checkpoint(tmp_path / "a.ckpt")
    assert checkpoint[KEY]["format_version"] == 2
    assert checkpoint[KEY]["data"]["class_names"] == list("0123456789")
    other = tiny(LRT())
    other.on_load_checkpoint(checkpoint)
    other.load_state_dict(checkpoint["state_dict"])
    assert other.summary == model.summary
    assert torch.equal(kl(other.network), kl(model.network))


def test_files_that_are_not_our_checkpoints_are_refused(tmp_path, capsys):
    path = tmp_path / "x.ckpt"
    with pytest.raises(CheckpointError, match=r"^there is no file .*x\.ckpt\.$"):
        read_checkpoint(path)
    for content in (b"", b"garbage", pickle.dumps(Bomb())):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"x\.ckpt"):
            read_checkpoint(path)
    torch.save({"state_dict": Bomb()}, path)
    with pytest.raises(CheckpointError, match="only files of tensors and plain values are read"):
        read_checkpoint(path)
    assert capsys.readouterr().out == ""
    torch.save({"state_dict": {}}, path)
    with pytest.raises(CheckpointError, match="was not written by bnn_lightning"):
        read_checkpoint(path)
    with pytest.raises(CheckpointError, match="has format version 99, this bnn_lightning reads versions up to 2"):
        check_format({KEY: {"format_version": 99}})


def test_from_checkpoint_needs_a_config_and_names_what_needs_none(tmp_path):
    model = tiny(LRT())
    fit(model).save_checkpoint(tmp_path / "a.ckpt")
    with pytest.raises(CheckpointError, match=r"a\.ckpt was saved from Python and holds no config") as said:
        BayesianModule.from_checkpoint(tmp_path / "a.ckpt")
    assert "BayesianModule.load_from_checkpoint(path, network=..., method=...)" in str(said.value)
    parts = {"network": tiny(None).network, "method": LRT()}
    loaded = BayesianModule.load_from_checkpoint(tmp_path / "a.ckpt", **parts, weights_only=True)
    assert torch.equal(kl(loaded.network), kl(model.network))


class Settings:
    """An object such as a user's callback may have in its state."""


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ({"callbacks": {"Mine": {"settings": Settings()}}}, "['callbacks']['Mine']['settings']"),
        ({"a": [1, (2.0, Settings())]}, "['a'][1][1]"),
        ({"a": {Settings: 1}}, "as a key"),
        ({"a": print}, "builtins.builtin_function_or_method at ['a']"),
    ],
)
def test_a_checkpoint_with_objects_is_refused_when_it_is_saved(value, place):
    with pytest.raises(
        CheckpointError, match=r"^the checkpoint holds .*, no tensor or plain value, and could not"
    ) as error:
        write_checkpoint(value, Path("a.ckpt"))
    assert place in str(error.value)
    assert list(Path().iterdir()) == []


def test_all_plain_values_can_be_read_again():
    values = [True, 10**30, 1.5, 2j, "a", b"x", None, torch.ones(2), torch.float32, torch.device("cpu"), {1: (2, {3})}]
    content = {
        "bnn_lightning": {"format_version": 2},
        "values": [*values, torch.Size([2]), torch.nn.Parameter(torch.ones(1))],
    }
    write_checkpoint(content, Path("a.ckpt"))
    assert len(read_checkpoint("a.ckpt")["values"]) == len(content["values"])


@sets_filters_of_its_own
@pytest.mark.parametrize(
    "config",
    [
        {"trainer": {"callbacks": [{"class_path": "LambdaCallback", "init_args": {"on_fit_start": "os.abort"}}]}},
        {"model": {"network": {"class_path": "mine.Net", "init_args": {"norm": "pty.spawn"}}}},
        {"data": {"class_path": "mine.Data", "init_args": {"transform": "logging.config.fileConfig"}}},
        {"trainer": {"profiler": "__main__.start"}},
        # jsonargparse calls what a class path names for a setting that is a function, with arguments.
        {
            "model": {
                "network": {
                    "class_path": "torch.nn.TripletMarginWithDistanceLoss",
                    "init_args": {"distance_function": {"class_path": "os.system", "init_args": {"command": "true"}}},
                }
            }
        },
        {"data": {"init_args": {"transforms": [{"class_path": "ctypes.CFUNCTYPE"}]}}},  # a function in capitals
    ],
)
def test_a_checkpoint_names_no_function_to_call(config, capsys):
    content = {"bnn_lightning": {"format_version": 2, "config": CONFIG | config}}
    message = (
        r"^a\.ckpt names the function (os|pty|logging\.config|__main__|ctypes)\.\w+ in its config; checkpoints call"
    )
    with pytest.raises(CheckpointError, match=message):
        write_checkpoint(content, Path("a.ckpt"))
    torch.save(content, "a.ckpt")  # what a stranger may do
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint("a.ckpt")
    assert main(["test", "--ckpt_path", "a.ckpt"]) == 2
    assert capsys.readouterr().err.startswith("bnn: error: --ckpt_path: a.ckpt names the function ")


def test_a_checkpoint_may_name_classes_and_activations():
    settings = {
        "norm": "torch.nn.BatchNorm2d",
        "activation": "torch.nn.functional.relu",
        "monitor": "val.nll",
        "x": "a.b",
    }
    network = {"class_path": "torchvision.models.resnet.ResNet", "init_args": settings}
    config = CONFIG | {"model": {"network": network, "init_from": "test.ckpt"}}
    write_checkpoint({"bnn_lightning": {"format_version": 2, "config": config}}, Path("a.ckpt"))
    assert read_checkpoint("a.ckpt")["bnn_lightning"]["config"] == config


@pytest.mark.parametrize("config", ["text", ["list"], {"model": {}}, {"seed_everything": 0}])
def test_a_checkpoint_with_a_config_that_is_none_is_refused(config):
    torch.save({"bnn_lightning": {"format_version": 2, "config": config}}, "a.ckpt")
    with pytest.raises(CheckpointError, match=r"^a\.ckpt holds a config that is not one of bnn fit's\.$"):
        read_checkpoint("a.ckpt")


@pytest.mark.parametrize("part", [0, 0.5, 0.99])
def test_a_checkpoint_that_was_cut_off_is_called_damaged(part):
    torch.save({"bnn_lightning": {"format_version": 2, "weights": torch.zeros(1000)}}, "a.ckpt")
    content = Path("a.ckpt").read_bytes()
    Path("a.ckpt").write_bytes(content[: int(part * len(content))])
    with pytest.raises(
        CheckpointError, match=r"^a\.ckpt cannot be read as a checkpoint: it is damaged, or another kind"
    ):
        read_checkpoint("a.ckpt")


@pytest.mark.parametrize(("name", "hint"), [("best.ckpt", ""), ("bset.ckpt", " Did you mean run/best.ckpt?")])
def test_what_is_there_is_not_what_was_meant(name, hint, capsys):
    Path("run").mkdir()
    Path("run/best.ckpt").write_bytes(b"damaged")
    assert main(["test", "--ckpt_path", f"run/{name}"]) == 2
    said = capsys.readouterr().err.strip()
    assert said.endswith(f".{hint}")
    assert said.count("run/") == 1 + bool(hint)


@sets_filters_of_its_own
def test_a_pickle_in_the_place_of_a_checkpoint_is_refused_by_every_verb(capsys):
    Path("bomb.ckpt").write_bytes(pickle.dumps(Bomb()))
    for verb in ("fit", "validate", "test", "predict", "prune", "export"):
        assert main([verb, "--ckpt_path", "bomb.ckpt"]) == 2
        out, err = capsys.readouterr()
        assert err.startswith("bnn: error: --ckpt_path: bomb.ckpt cannot be read as a checkpoint: ")
        assert err.count("\n") == 1
        assert out == ""
