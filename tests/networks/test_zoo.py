"""The zoo: torchvision's classifiers under five methods, by the checks of benchmarks/zoo.py."""

import pytest
import zoo

from tests.helpers import ON_THE_COMMAND_LINE

# All methods where the network is small; one under which weights have noise of their own where it is large.
LARGE = ("alexnet", "vgg11_bn", "wide_resnet50_2", "convnext_tiny", "vit_b_16", "swin_t", "swin_v2_t", "maxvit_t")
CELLS = [
    (name, method)
    for name in zoo.ZOO
    for method in zoo.METHODS
    if name not in LARGE or method == list(zoo.METHODS)[LARGE.index(name) % len(zoo.METHODS)]
]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # positions and class tokens, which stay deterministic; torchvision's own
@pytest.mark.parametrize(("name", "method"), CELLS)
def test_networks_of_torchvision_convert_train_draw_and_go_back(name, method):
    share = zoo.check(name, zoo.METHODS[method], zoo.build(name))
    assert share > (0.6 if zoo.ZOO[name].left_out else 0.99)


class TestOnTheCommandLine:
    pytestmark = ON_THE_COMMAND_LINE

    @pytest.mark.slow
    @pytest.mark.parametrize("place", range(len(zoo.METHODS)))
    def test_networks_of_torchvision_train_test_and_predict(self, place):
        small = [name for name in zoo.ZOO if name not in LARGE]
        zoo.run_commands(small[3 * place % len(small)], list(zoo.METHODS)[place])
