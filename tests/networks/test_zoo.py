"""The zoo: torchvision's classifiers under five methods, by the checks of benchmarks/zoo.py."""

import pytest
import zoo

from tests.helpers import FOR_NUMBERS

# ``python benchmarks/zoo.py`` has all pairs. Here small networks of three kinds are under all methods, large networks
# under one each and the others under two each, in turn.
LARGE = ("alexnet", "vgg11_bn", "wide_resnet50_2", "convnext_tiny", "vit_b_16", "swin_t", "swin_v2_t", "maxvit_t")
UNDER_EVERY_METHOD = ("resnet18", "mobilenet_v3_small", "squeezenet1_1")


def methods_of(name):
    if name in UNDER_EVERY_METHOD:
        return list(zoo.METHODS)
    turns = [LARGE.index(name)] if name in LARGE else [list(zoo.ZOO).index(name), list(zoo.ZOO).index(name) + 2]
    return [list(zoo.METHODS)[turn % len(zoo.METHODS)] for turn in turns]


CELLS = [(name, method) for name in zoo.ZOO for method in methods_of(name)]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # positions and class tokens, which stay deterministic; torchvision's own
@pytest.mark.parametrize(("name", "method"), CELLS)
def test_networks_of_torchvision_convert_train_draw_and_go_back(name, method):
    share = zoo.check(name, zoo.METHODS[method], zoo.build(name))
    assert share > (0.6 if zoo.ZOO[name].left_out else 0.99)


class TestOnTheCommandLine:
    pytestmark = FOR_NUMBERS

    @pytest.mark.slow
    @pytest.mark.parametrize("place", range(len(zoo.METHODS)))
    def test_networks_of_torchvision_train_test_and_predict(self, place):
        small = [name for name in zoo.ZOO if name not in LARGE]
        zoo.run_commands(small[3 * place % len(small)], list(zoo.METHODS)[place])
