from .compat import (
    BBB_LRT_Conv2d,
    BBB_LRT_Linear,
    BBBConv2d,
    BBBLinear,
    FlattenLayer,
    ModuleWrapper,
    load_reference_state_dict,
)
from .core.conversion import bayesianize
from .core.kernels.memory import keep_freed_memory
from .core.layers import BayesianLayer
from .core.methods import (
    BBB,
    LRT,
    Flipout,
    GaussianS,
    GaussianW,
    HierarchicalA,
    HierarchicalB,
    MCDropout,
    Method,
    Sparse,
    VariationalA,
    VariationalB,
)
from .core.objective import elbo, variational_loss
from .core.priors import LearntScale, ScaleMixture
from .core.whole_network import kl, sampling
from .deployment.pt2 import load_dense
from .evaluation.sampler import Ensemble, Sampler, sample_logits
from .likelihoods.categorical.predictive import (
    covariances,
    expected_entropy,
    log_predictive,
    mutual_information,
    predictive_entropy,
    probabilities,
    variances,
)
from .networks import (
    MLP,
    AlexNet,
    BaseCNN,
    BatchNormMLP,
    CIFARNet,
    LeNet,
    LeNet5Caffe,
    LeNet300100,
    SKNet,
    ThreeConvThreeFC,
    multiply_adds,
)
from .training.module import BayesianClassifier

__version__: str
