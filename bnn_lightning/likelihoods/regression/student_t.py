"""StudentT, the likelihood of numbers with outliers."""

import math
from dataclasses import dataclass
from typing import ClassVar

from bnn_lightning.likelihoods.regression.likelihood import Regression


@dataclass(frozen=True)
class StudentT(Regression):
    """p(y | outputs) = t_df((y - location) / scale) / scale for each target, a number: for noise with outliers.

    Args:
        targets: number of target columns, which the data fill in.
        heteroscedastic: whether the network gives the scale for each input, as the logarithm of its square in a second
            output for each target; otherwise it is one number for each target, which is learnt with the weights.
        scale: of the noise where it is known, in the units of the targets; null learns it.
        df: degrees of freedom, above 2, where the variance is finite; null learns them, one number for each target.
    """

    has_dfs: ClassVar[bool] = True

    scale: float | None = None
    df: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.df is not None and not (math.isfinite(self.df) and self.df > 2):
            raise ValueError(
                f"df must be a number above 2, where the variance is finite, got {self.df}; Gaussian has infinitely "
                "many."
            )

    @property
    def _given_scale(self) -> float | None:
        return self.scale

    @property
    def _scale_name(self) -> str:
        return "scale"

    @property
    def _given_dfs(self) -> float | None:
        return self.df
