"""Private names of libraries that this package uses: a release that has one of them no more is noticed here."""

import argparse
import ast

import litserve
import optuna
import pytest
import torch
from jsonargparse import DefaultHelpFormatter
from lightning.fabric.utilities.distributed import DistributedSamplerWrapper
from lightning.pytorch import LightningModule
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.cli import LightningCLI
from torch import nn
from torch.nn.utils import prune
from torch.utils.data import SequentialSampler

from tests.helpers import ROOT

READ = [
    (nn.Linear(1, 1), ["_buffers", "_modules", "_non_persistent_buffers_set", "_parameters"]),
    (nn.Linear(1, 1), ["_forward_hooks", "_forward_hooks_with_kwargs", "_forward_hooks_always_called"]),
    (nn.Linear(1, 1), ["_forward_pre_hooks", "_forward_pre_hooks_with_kwargs"]),
    (nn.Linear(1, 1), ["_backward_hooks", "_backward_pre_hooks", "_is_full_backward_hook"]),
    (nn.Linear(1, 1).state_dict(), ["_metadata"]),
    (nn.Conv2d(1, 1, 1), ["_reversed_padding_repeated_twice"]),
    (torch.zeros(1), ["_version"]),
    (LightningModule(), ["_trainer"]),
    (DistributedSamplerWrapper(SequentialSampler([0]), num_replicas=1, rank=0).dataset, ["_sampler"]),
    (LightningCLI, ["_instantiate_trainer"]),
    (argparse.ArgumentParser(), ["_actions", "_action_groups"]),
    (argparse.ArgumentParser().add_argument_group(), ["_group_actions"]),
    (optuna.trial.create_trial(value=0.0), ["_trial_id"]),
    (litserve.LitServer, ["_get_request_queue"]),
]
# A method that overrides one of a library would no longer be called when that is renamed, and nothing would say so.
OVERRIDDEN = [
    (nn.Module, ["_load_from_state_dict"]),
    (DefaultHelpFormatter, ["_get_help_string"]),
    (RichProgressBar, ["_get_train_description"]),
    (litserve.LitServer, ["_init_manager", "_perform_graceful_shutdown", "_start_server"]),
]
# Attributes of running servers and of pruned layers, which the tests of these would miss; and a namedtuple's own.
ELSEWHERE = {"_transport", "_server_pid", "_process", "_tensor_name", "_replace"}


@pytest.mark.parametrize(
    ("owner", "names"), READ + OVERRIDDEN, ids=lambda value: None if isinstance(value, list) else ""
)
def test_libraries_still_have_what_is_used(owner, names):
    assert [name for name in names if not hasattr(owner, name)] == []


def test_a_pruned_layer_still_says_which_tensor():
    layer = prune.identity(nn.Linear(1, 1), "weight")
    (hook,) = layer._forward_pre_hooks.values()
    assert hook._tensor_name == "weight"


def test_no_other_private_name_is_used():
    trees = [ast.parse(path.read_text()) for path in (ROOT / "bnn_lightning").rglob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    own = {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)}
    own |= {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    own |= {node.attr for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)}
    own |= {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    used = {node.attr for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)}
    used = {name for name in used if name.startswith("_") and not name.startswith("__")} - own
    assert used <= {name for _, names in READ for name in names} | ELSEWHERE
    assert {name for _, names in OVERRIDDEN for name in names} <= own
    modules = {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    assert not any(part.startswith("_") for module in modules for part in module.split("."))
