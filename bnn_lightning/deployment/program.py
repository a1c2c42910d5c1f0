"""The program that torch.export makes of a network, which formats write; and the names of its outputs."""

import io
from collections.abc import Mapping
from contextlib import redirect_stderr

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from bnn_lightning.wording import first_line


def exported_program(net: nn.Module, example: Tensor) -> ExportedProgram:
    """The program of ``net`` in eval mode, for batches of any size.

    Args:
        net: the network.
        example: two or more inputs, ``(batch, ...)``.

    Raises:
        ValueError: when torch.export does not take it, with the first line of its reason; when its forward fixes the
            size of the batch.
    """
    try:
        # torch stores the example in files, with the whole memory of which it is a view: hence the clone.
        dynamic = ({0: torch.export.Dim("batch")},)
        with redirect_stderr(io.StringIO()):  # where torch prints the whole graph up to what it cannot take
            return torch.export.export(net.eval(), (example.clone(),), dynamic_shapes=dynamic)
    except Exception as error:  # whatever a network does with what stands for its inputs
        if "Constraints violated (batch)" in str(error):
            raise ValueError(
                "network must be one that takes batches of any size to be exported, got one whose forward makes a "
                "number of the batch's size: x.shape[0] in the place of len(x), and nothing that compares it, keeps it "
                "open."
            ) from error
        cure = "; torch.where chooses by a value" if "data-dependent" in str(error) else ""
        raise ValueError(
            f"network must be one that torch.export takes, got an error: {first_line(error)}{cure}."
        ) from error


def output_names(net: nn.Module, example: Tensor) -> list[str]:
    """The names of the outputs in their order: those of the dictionary that ``net`` gives, or else ``outputs``."""
    with torch.no_grad():
        outputs = net(example.clone())
    return list(outputs) if isinstance(outputs, Mapping) else ["outputs"]
