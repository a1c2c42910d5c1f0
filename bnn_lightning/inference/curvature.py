"""The curvature of the nll in the weights of a last linear layer: its generalised Gauss-Newton matrix (GGN).

With features phi of an example, a 1 at their end for the bias, and Lambda the Hessian of its nll in the outputs, the
GGN is the sum over examples of the Kronecker product of Lambda and phi phi^T. It is kept whole, as one Kronecker
product of two sums, or as its diagonal. Sums are in float64.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bnn_lightning.core.layers import BayesianLayer

_SLICE = 2**24  # numbers of the Hessians that are in memory at once
Width = Callable[[Tensor], Tensor]


class Curvature(ABC):
    """Sums over examples, from which the GGN is formed.

    Args:
        outputs: K, of the layer.
        columns: of weight and bias together: in_features, and one more if there is a bias.
        device: of the sums.
    """

    def __init__(self, outputs: int, columns: int, device: torch.device):
        self.outputs, self.columns = outputs, columns
        # Apple's devices have no float64.
        self.device = torch.device("cpu") if device.type == "mps" else device
        self.examples = self.zeros()

    def zeros(self, *shape: int) -> Tensor:
        """A sum of that shape."""
        return torch.zeros(shape, dtype=torch.float64, device=self.device)

    def add(self, features: Tensor, hessian: Callable[[slice], Tensor]) -> None:
        """Adds the examples of a batch.

        Args:
            features: ``(batch, columns)``.
            hessian: gives the Hessians of those examples that are in a slice, ``(examples, outputs, outputs)``.
        """
        at_once = max(1, _SLICE // self.outputs**2)
        for start in range(0, len(features), at_once):
            part = slice(start, start + at_once)
            self.add_slice(self._precise(features[part]), self._precise(hessian(part)))
        self.examples += len(features)

    def _precise(self, x: Tensor) -> Tensor:
        return x.to(self.device).double()

    def sum_over_processes(self) -> None:
        """In a run of several processes, adds the sums of all."""
        if torch.distributed.is_initialized():
            for value in vars(self).values():
                if isinstance(value, Tensor):
                    torch.distributed.all_reduce(value)

    @staticmethod
    @abstractmethod
    def num_bytes(outputs: int, columns: int) -> int:
        """The memory that forming the posterior takes, in bytes."""

    @abstractmethod
    def add_slice(self, features: Tensor, hessian: Tensor) -> None:
        """Adds examples in float64: ``(examples, columns)`` and ``(examples, outputs, outputs)``."""

    @abstractmethod
    def eigenvalues(self) -> Tensor:
        """Those of the GGN, not sorted: ``(outputs * columns,)``, 0 or more."""

    @abstractmethod
    def fill(self, layer: BayesianLayer, width: Width) -> None:
        """Sets the posterior of ``layer`` to the eigenvectors, with the standard deviation ``width`` of eigenvalues."""

    def _rows(self, layer: BayesianLayer, matrix: Tensor) -> list[tuple[Any, Tensor]]:
        """Weight and bias with their parts of ``matrix``, ``(..., columns, ...)``, along its second axis."""
        weight, bias = matrix[:, : layer.op.in_features], matrix[:, layer.op.in_features :]
        return [(layer.weight, weight)] if layer.bias is None else [(layer.weight, weight), (layer.bias, bias)]


class Full(Curvature):
    """The whole GGN, ``(K * columns)^2`` numbers."""

    def __init__(self, outputs: int, columns: int, device: torch.device):
        super().__init__(outputs, columns, device)
        self.ggn = self.zeros(outputs, columns, outputs, columns)

    @staticmethod
    def num_bytes(outputs: int, columns: int) -> int:
        # The GGN and its eigenvectors with the solver's workspace in float64, and the factor in float32.
        return 44 * (outputs * columns) ** 2

    def add_slice(self, features: Tensor, hessian: Tensor) -> None:
        for row in range(self.outputs):
            for column in range(row + 1):  # eigenvalues are found from the lower triangle alone
                self.ggn[row, :, column] += features.T @ (features * hessian[:, row, column, None])

    def eigenvalues(self) -> Tensor:
        values, self.vectors = torch.linalg.eigh(self.ggn.flatten(0, 1).flatten(1), UPLO="L")
        self.values = values.clamp_min(0)
        return self.values

    def fill(self, layer: BayesianLayer, width: Width) -> None:
        factor = self.vectors.mul_(width(self.values)).view(self.outputs, self.columns, -1)
        for part, rows in self._rows(layer, factor):
            part.factor.copy_(rows.reshape(part.factor.shape))


class Kronecker(Curvature):
    """The sum of Lambda, and the mean of phi phi^T, whose Kronecker product is the GGN of one example exactly.

    Ritter et al. 2018 (openreview.net/forum?id=Skdvd2xAZ), for a last layer.
    """

    def __init__(self, outputs: int, columns: int, device: torch.device):
        super().__init__(outputs, columns, device)
        self.of_outputs, self.of_features = self.zeros(outputs, outputs), self.zeros(columns, columns)

    @staticmethod
    def num_bytes(outputs: int, columns: int) -> int:
        return 44 * (outputs**2 + columns**2)

    def add_slice(self, features: Tensor, hessian: Tensor) -> None:
        self.of_outputs += hessian.sum(0)
        self.of_features += features.T @ features

    def eigenvalues(self) -> Tensor:
        left, self.left = torch.linalg.eigh(self.of_outputs)
        right, self.right = torch.linalg.eigh(self.of_features / self.examples)
        self.values = torch.outer(left.clamp_min(0), right.clamp_min(0))
        return self.values.flatten()

    def fill(self, layer: BayesianLayer, width: Width) -> None:
        for part, rows in self._rows(layer, self.right.unsqueeze(0)):
            part.left.copy_(self.left)
            part.scales.copy_(width(self.values))
            part.right.copy_(rows[0])


class Diagonal(Curvature):
    """The diagonal of the GGN."""

    def __init__(self, outputs: int, columns: int, device: torch.device):
        super().__init__(outputs, columns, device)
        self.diagonal = self.zeros(outputs, columns)

    @staticmethod
    def num_bytes(outputs: int, columns: int) -> int:
        return 20 * outputs * columns

    def add_slice(self, features: Tensor, hessian: Tensor) -> None:
        self.diagonal += hessian.diagonal(dim1=1, dim2=2).T @ features.square()

    def eigenvalues(self) -> Tensor:
        return self.diagonal.flatten()

    def fill(self, layer: BayesianLayer, width: Width) -> None:
        for part, rows in self._rows(layer, width(self.diagonal)):
            part.sigma.copy_(rows.reshape(part.sigma.shape))
