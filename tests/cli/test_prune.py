"""``bnn prune``: what removing weights costs."""

from pathlib import Path

from PIL import Image

from bnn_lightning.cli import main
from tests.helpers import ON_THE_COMMAND_LINE, table

pytestmark = ON_THE_COMMAND_LINE


def test_prune_measures_each_share(run, capsys):
    assert main(["prune", "--ckpt_path", str(run / "last.ckpt"), "--removed", "[0, 0.9]"]) == 0
    logs = Path("lightning_logs/lenet_lrt_mnist5k/version_0")
    rows = table(logs / "pruning_mnist5k_last.csv")
    assert [(float(row["removed"]), int(row["kept"])) for row in rows] == [(0.0, 61_470), (0.9, 6_147)]
    assert Image.open(logs / "pruning_mnist5k_last.png").size[0] > 400


def test_prune_is_of_the_test_images_whatever_else_is_tested(run):
    tables = []
    for words in ([], ["--data.corruptions", "true", "--data.ood", "[RenderedLetters]"]):
        assert main(["prune", "--ckpt_path", str(run / "last.ckpt"), "--removed", "0", *words]) == 0
        tables.append(table(Path("lightning_logs/lenet_lrt_mnist5k/version_0/pruning_mnist5k_last.csv")))
    assert tables[0] == tables[1]
