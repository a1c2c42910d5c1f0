"""The JSON files of results are what results.schema.json says, and studies read nothing else of them."""

import json

import pytest
from jsonschema import Draft202012Validator

from bnn_lightning.cli import main
from bnn_lightning.reporting.results import SCHEMA_VERSION
from tests.helpers import FOR_NUMBERS, ROOT, SMALL

pytestmark = FOR_NUMBERS
SCHEMA = json.loads((ROOT / "bnn_lightning" / "reporting" / "results.schema.json").read_text())


def test_the_schema_is_one_and_says_its_version():
    Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["properties"]["schema_version"]["const"] == SCHEMA_VERSION


@pytest.mark.parametrize(
    ("fit", "test", "ways"),
    [
        (["--model.method", "LRT"], ["--data.ood", "[RenderedLetters]"], ["samples", "one_sample", "mean_weights"]),
        (["--model.method", "Sparse"], [], ["samples", "one_sample", "mean_weights", "kept_weights"]),
        ([], ["--data.corruptions", "true"], ["samples"]),
        (["--model.method", "MCDropout"], ["--model.sampling.draws", "mean"], ["samples"]),
    ],
    ids=["lrt", "sparse", "deterministic", "mean"],
)
def test_results_are_what_the_schema_says(fit, test, ways, tmp_path):
    words = ["fit", "--model.network", "LeNet", *SMALL, *fit, "--trainer.max_epochs", "1", "--name", "a"]
    assert main(words) == 0
    assert main(["test", "--ckpt_path", "checkpoints/a/version_0/last.ckpt", *test]) == 0
    (file,) = (tmp_path / "lightning_logs" / "a" / "version_0").glob("test_*.json")
    results = json.loads(file.read_text())
    Draft202012Validator(SCHEMA).validate(results)
    assert list(results["predictions"]) == ways == list(results["errors"])
    bad = results | {"predictions": {"25 weight draws": {}}}  # the test can fail
    assert not Draft202012Validator(SCHEMA).is_valid(bad)
