"""The method of layers whose weight and bias are drawn together, from posteriors that an inference forms."""

from torch import Tensor

from bnn_lightning.core.methods.base import Method
from bnn_lightning.core.ops.base import Op
from bnn_lightning.core.posteriors import Posterior
from bnn_lightning.core.posteriors.joint import sample_together


class DrawnTogether(Method):
    """One draw of weight and bias for the whole batch; where they are parts of one joint posterior, of the joint.

    An inference derives from it, with the posteriors that it forms.
    """

    def forward(self, op: Op, x: Tensor, weight: Posterior, bias: Posterior | None) -> Tensor:
        drawn = sample_together([weight] if bias is None else [weight, bias])
        return op(x, drawn[0], drawn[1] if len(drawn) > 1 else None)
