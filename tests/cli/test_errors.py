"""Mistakes: one sentence each, which names the flag and the cure."""

from pathlib import Path

import pytest
import torch

from bnn_lightning.checkpoints.record import read_checkpoint, without_training_state
from bnn_lightning.cli import main
from bnn_lightning.cli.names import names_of
from bnn_lightning.cli.sentences import one_sentence
from bnn_lightning.data import ImageData
from bnn_lightning.networks import Network
from tests.helpers import LENET, ON_THE_COMMAND_LINE, SMALL, printed

pytestmark = ON_THE_COMMAND_LINE
NETWORKS = ", ".join(names_of(Network))
# ruff: noqa: E501
MISTAKES = [
    ("--model.network LeNett", f"--model.network does not know LeNett; did you mean LeNet? It can be {NETWORKS}, or the class path of your own."),
    ("--model.network nowhere.Net", "--model.network names nowhere.Net, which cannot be imported: No module named 'nowhere'; --code FOLDER says where a module of your own is."),
    ("--model.network torch.nn.Lineer", "--model.network names torch.nn.Lineer, which cannot be imported: module 'torch.nn' has no attribute 'Lineer' (did you mean torch.nn.Linear?)."),
    ("--model.network.activation tanh", "--model.network.activation must be one of relu, softplus, sigmoid, got tanh."),
    ("--model.method Flipput", "--model.method does not know Flipput; did you mean Flipout? It can be BBB, Flipout, GaussianS, GaussianW, HierarchicalA, HierarchicalB, LRT, MCDropout, Rank1, Sparse, VariationalA, VariationalB, or the class path of your own."),
    ("--model.method.prior_sigma -1", "--model.method.prior_sigma must be a positive standard deviation such as 0.1, got -1.0."),
    ("--model.method.prior_sigma x", "--model.method.prior_sigma must be a number, got x."),
    ("--model.method.sigma 1", "--model.method.sigma is not a setting (did you mean --model.method.prior_sigma?); bnn fit --model.method.help NAME lists those of NAME."),
    ("--model.inference.lr abc", "--model.inference.lr must be a number, got abc."),
    ("--model.inference.lr -1", "--model.inference.lr must be a positive number, got -1.0."),
    ("--model.inference.kl_weight -1", "--model.inference.kl_weight must be a number from 0 up, or a schedule, got -1.0."),
    ("--data.batch_size x", "--data.batch_size must be a whole number, got x."),
    ("--data.val_split 2", "--data.val_split must be from 0 to below 1, such as 0.2, got 2.0."),
    ("--data.image_size 28", "--data.image_size must be 32 for LeNet, got 28; leave it out, and images are resized."),
    ("--data.train_subset 9999", "--data.train_subset must lie within the 4000 training images, got 9999."),
    ("--trainer.max_epochs x", "--trainer.max_epochs must be a whole number, got x."),
    ("--trainer.max_epochs -1", "--trainer.max_epochs must be 1 or more, for schedules need its length, got -1."),
    (
        "--trainer.precision 16-mixed --trainer.accelerator cpu",
        "--trainer.precision 16-mixed needs a GPU: no CPU computes in fp16; bf16-mixed is its like there.",
    ),
    (
        "--trainer.precision bf16-true",
        "--trainer.precision bf16-true is too coarse for rho: at -5 its next number is 0.004 or more away, and Adam moves "
        "it by 0.001 a step; bf16-mixed keeps parameters in float32.",
    ),
    ("--model.inference.samples null", "--model.inference.samples must not be null; leave it out for its default."),
    ("--model.inference.optimizer Adamm", "--model.inference.optimizer does not know Adamm (did you mean Adam?); it must be the name or class path of an Optimizer."),
    ("--model.inference.optimizer torch.nn.Linear", "--model.inference.optimizer must be the class path of a subclass of Optimizer, got torch.nn.Linear."),
    ("--model.inference.kl_weight.length null", "--model.inference.kl_weight.length must not be null; leave it out for its default."),
    ("--data.batch_size null", "--data.batch_size must not be null; leave it out for its default."),
    ("--model.network os.system", f"--model.network must be the name of a Network, such as {', '.join(names_of(Network))}, got os.system."),
    ("--seed_everything -1", "--seed_everything must be from 0 to 4294967295, got -1."),
    ("--model.metod LRT", "--model.metod is not a flag (did you mean --model.method?); bnn fit --help lists them."),
    ("--trainer.max_epoch 3", "--trainer.max_epoch is not a flag (did you mean --trainer.max_epochs?); bnn fit --help lists them."),
    ("--nothing.like.it 3", "--nothing.like.it is not a flag; bnn fit --help lists them."),
    ("LRT", "LRT belongs to no flag; flags begin with --, and bnn fit --help lists them."),
    ("--data.batchsize 4", "--data.batchsize is not a setting (did you mean --data.batch_size?); bnn fit --data.help NAME lists those of NAME."),
    ("--data.train_subset", "--data.train_subset needs a value after it."),
    ("--data.ood NotMNIST", "--data.ood must be a list, such as [NotMNIST], got NotMNIST."),
    ("--data.ood notmnist", "--data.ood must be a list, such as [NotMNIST], got notmnist."),
    ("--data.ood [notMNIST]", f"--data.ood does not know notMNIST; did you mean NotMNIST? It can be {', '.join(names_of(ImageData))}, or the class path of your own."),
    ("--model.inference.kl_weight 1 --model.inference.kl_weight.lenght 2", "--model.inference.kl_weight.lenght is a setting of a part that is not chosen; name it before, as --model.inference.kl_weight NAME."),
    ("--model.sampling 3", "--model.sampling must be settings by their names, or the name of a YAML file with such."),
    ("--model lrt", "--model must be settings by their names, or the name of a YAML file with such (did you mean --model.method LRT?)."),
    ("--model lenett", "--model must be settings by their names, or the name of a YAML file with such (did you mean --model.network LeNet?)."),
    ("--trainer.logger CSVLoger", "--trainer.logger does not know CSVLoger (did you mean CSVLogger?); it must be the name or class path of a Logger."),
    ("--trainer.logger CSVLogger", "--trainer.logger.save_dir is missing, which CSVLogger needs."),
    ("--trainer.callbacks EarlyStopping", "--trainer.callbacks.monitor is missing, which EarlyStopping needs."),
    ("--trainer.profiler simpel", "--trainer.profiler must be simple, advanced, pytorch, xla or the class path of a Profiler, got simpel (did you mean simple?)."),
    ("--trainer.profiler PyTorchProfiler", "--trainer.profiler.record_module_names must be false, for a network with hooks of this kind cannot be calibrated or tested; --trainer.profiler pytorch sets it."),
    ("--trainer.callbacks StochasticWeightAveraging --trainer.callbacks.swa_lrs 0.1", "--trainer.callbacks StochasticWeightAveraging puts its averages in after the last validation, so that best.ckpt and last.ckpt would hold weights that nothing has measured; WeightAveraging and EMAWeightAveraging validate and save theirs."),
    ("--trainer.callbacks [BatchSizeFinder]", "--trainer.callbacks BatchSizeFinder trains with a batch size that the checkpoint does not know, so that the run could not be gone on with; give --data.batch_size."),
    ("--code nowhere", "--code must be a folder, got nowhere."),
    ("--save_every_n_steps 0", "--save_every_n_steps must be 1 or more, or null, got 0."),
    ("--trainer.devices 0", "--trainer.devices must be how many devices to use, at least 1, or their numbers, got 0."),
    ("--trainer.gradient_clip_val -1", "--trainer.gradient_clip_val must be above 0, or null for no clipping, got -1."),
    ("--trainer.strategy foo", "--trainer.strategy must be auto or the name of one of Lightning's strategies, such as ddp or fsdp, got foo."),
    ("--trainer.val_check_interval 1.5", "--trainer.val_check_interval must be a share of an epoch from 0 to 1, or a number of batches, got 1.5."),
]  # fmt: skip


@pytest.mark.parametrize(("words", "sentence"), MISTAKES, ids=[words for words, _ in MISTAKES])
def test_mistakes_get_one_sentence_and_leave_nothing_behind(words, sentence, capsys):
    assert main(["fit", "--config", LENET, *SMALL, *words.split()]) == 2
    assert printed(capsys) == f"bnn: error: {sentence}\n"
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            "fitt",
            "there is no verb fitt; did you mean fit? It can be acquire, completion, ensemble, export, fit, laplace, predict, prune, simulate, test, ",
        ),
        ("train", "there is no verb train; did you mean fit? It can be acquire, "),
        ("--config a.yaml", "there is no verb --config; it can be acquire, completion, ensemble"),
        ("mypackage.Count", "mypackage.Count cannot be imported: No module named 'mypackage'."),
        ("pathlib.Path", "pathlib.Path is no verb: a subclass of bnn_lightning.cli.Verb with a method run."),
        ("fit", "--model.network and --data are missing; start from a config, such as bnn fit --config"),
        ("fit --config nowhere.yaml", "--config: there is no file nowhere.yaml; bnn configs lists what comes with"),
        (
            "fit --config lenet_irt.yml",
            "--config: there is no file lenet_irt.yml (did you mean lenet_lrt?); bnn configs",
        ),
        (
            "test --ckpt_path lenet_lrt",
            "there is no file lenet_lrt. Did you mean lenet_lrt_mnist, which comes with the",
        ),
        (
            "test --ckpt_path .",
            "--ckpt_path: there is no best.ckpt or last.ckpt in .; name the folder of a run, or a file.",
        ),
        (
            "fit --model.networkk LeNet --data MNIST5k",
            "--model.networkk is not a flag (did you mean --model.network?); bnn fit",
        ),
        ("test --ckpt last.ckpt", "--ckpt is not a flag; did you mean --ckpt_path?"),
        ("fit --config lenet_lrt --epochs 3", "--epochs is not a flag (did you mean --trainer.max_epochs?)"),
        ("test", "--ckpt_path is missing: bnn test --ckpt_path checkpoints/NAME/version_0/best.ckpt."),
        ("test --ckpt_path nowhere.ckpt", "--ckpt_path: there is no file nowhere.ckpt."),
    ],
)
def test_mistakes_in_the_verb_or_its_files_get_one_sentence(words, sentence, capsys):
    assert main(words.split()) == 2
    text = printed(capsys)
    assert sentence in text
    assert len(text.splitlines()) == 1


@pytest.mark.parametrize("folder", ["photos", "./photos", "my photos", "photos/new"])
def test_a_folder_of_pictures_is_no_name_of_data(folder, capsys):
    Path(folder).mkdir(parents=True)
    assert main(["fit", "--config", LENET, "--data", folder]) == 2
    sentence = f"--data {folder} is a folder; pictures in folders go by --data ImageFolder --data.root {folder}."
    assert printed(capsys) == f"bnn: error: {sentence}\n"


def test_a_file_is_no_name_of_data(capsys):
    Path("prices.csv").write_text("a,b\n" + "1,2\n" * 500)
    assert main(["fit", "--config", LENET, "--data", "prices.csv"]) == 2
    sentence = (
        "--data must be a name or a class path, got the file prices.csv; a table goes by --data Table --data.path"
    )
    assert printed(capsys) == f"bnn: error: {sentence} prices.csv.\n"


def test_a_sentence_names_the_verb_that_was_asked_for(run, capsys):
    assert main(["test", "--ckpt_path", str(run / "last.ckpt"), "--data.zz", "3"]) == 2
    sentence = "bnn: error: --data.zz is not a setting; bnn test --data.help NAME lists those of NAME.\n"
    assert printed(capsys) == sentence


CONFIGS = [
    (
        "model: {network: LeNet, metod: LRT}\ndata: MNIST5k",
        "--model.metod is not a setting (did you mean --model.method?)",
    ),
    ("foo: 1\ndata: MNIST5k", "bnn: error: --foo is not a setting; bnn fit --help lists them."),
    (
        "nmae: a\ndata: MNIST5k",
        "bnn: error: --nmae is not a setting (did you mean --name?); bnn fit --help lists them.",
    ),
    ("modle: {network: LeNet}\ndata: MNIST5k", "--modle.network is not a setting (did you mean --model.network?)"),
    (
        "model: {network: {class_path: LeNet, init_args: {activaton: relu}}}\ndata: MNIST5k",
        "--model.network.activaton is not a setting (did you mean --model.network.activation?)",
    ),
    ("model: {network: LeNet}\ndata: MNIST5k\ntrainer: {max_epoch: 1}", "(did you mean --trainer.max_epochs?)"),
    ("model: {network: LeNet}\ndata: {class_path: MNIST5k, init_args: {ood: NotMNIST}}", "such as [NotMNIST], got Not"),
    ("model: {network: LeNet,\ndata: MNIST5k", "--config must be a YAML file, got one that is none: while parsing"),
    ("- a", "--config must be settings by their names, got - a."),
    ("", "--config must be settings by their names, got config.yaml, which is empty."),
    ("# later\n", "--config must be settings by their names, got config.yaml, which is empty."),
    (
        "model: {network: LeNet}\ndata: MNIST5k\ntrainer: null",
        "--trainer must not be null; leave it out for its defaults.",
    ),
    (
        "model: {network: LeNet}\ndata: MNIST5k\ncode: here",
        "--code here stands in a config; it goes on the command line.",
    ),
]


@pytest.mark.parametrize(("text", "sentence"), CONFIGS, ids=[sentence for _, sentence in CONFIGS])
def test_mistakes_in_a_config_are_named_as_its_flags_would_be(text, sentence, capsys):
    Path("config.yaml").write_text(text)
    assert main(["fit", "--config", "config.yaml"]) == 2
    said = printed(capsys)
    assert sentence in said
    assert said.count("\n") == 1


def test_debug_shows_the_traceback_behind_a_sentence(capsys):
    words = ["fit", "--config", LENET, *SMALL, "--model.network", "nowhere.Net"]
    for place in (0, 1, len(words)):
        assert main([*words[:place], "--debug", *words[place:]]) == 2
        said = printed(capsys).splitlines()
        assert said[0] == "Traceback (most recent call last):"
        assert "ModuleNotFoundError: No module named 'nowhere'" in said
        assert said[-1].startswith("bnn: error: --model.network names nowhere.Net")


def test_an_unknown_message_becomes_one_sentence():
    assert one_sentence("something went\n  wrong.") == "something went wrong."


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("fit --ckpt_path small.ckpt --trainer.max_epochs 9", "small.ckpt holds no training state: it can be tested"),
        ("fit --config {run}/last.ckpt", "--config must be a YAML file, got one that is not text."),
        (
            "test --ckpt_path {run}/last.ckpt --model.network AlexNet",
            "--model.network is LeNet in the trained network of",
        ),
        (
            "test --ckpt_path {run}/last.ckpt --remark hello",
            "--remark is a paragraph of the report, which is written with",
        ),
        ("predict --ckpt_path {run}/last.ckpt --trainer.devices 2", "--trainer.devices must be 1 for predict, got 2."),
        ("fit --config {config} --trainer.accelerator foo", "--trainer.accelerator must be one of auto, "),
        ("fit --config {config} --trainer.precision foo", "--trainer.precision must be one of "),
        ("fit --config {config} --trainer.max_steps 1", "--trainer.max_epochs sets a run's length"),
        (
            "fit --config {config} --trainer.accumulate_grad_batches 0",
            "accumulate_grad_batches must be 1 or more, got 0.",
        ),
        (
            "fit --config {config} --trainer.overfit_batches 4",
            "--trainer.overfit_batches would take other images in each epoch; --data.train_subset trains on a few.",
        ),
        (
            "fit --config {config} --trainer.precision 16-mixed --model.inference.loss_form total",
            "--model.inference.loss_form must be per_datum with --trainer.precision 16-mixed, whose numbers end at 65,504",
        ),
        ("fit --config {config} --trainer.limit_train_batches 0", "limit_train_batches must be above 0, got 0."),
        (
            "test --ckpt_path {run}/last.ckpt --trainer.limit_test_batches 0",
            "limit_test_batches must be above 0, got 0.",
        ),
        (
            "validate --ckpt_path {run}/last.ckpt --trainer.limit_val_batches 0",
            "limit_val_batches must be above 0, got 0.",
        ),
        ("prune --ckpt_path {run}/last.ckpt --removed []", "--removed must be a share of the weights, or several"),
        (
            "ensemble --ckpt_path {run}/best.ckpt --members [{run}/best.ckpt]",
            "best.ckpt is there twice; an ensemble is of different networks.",
        ),
        (
            "fit --config {config} --model.inference.kl_weight.start -1",
            "--model.inference.kl_weight.start must be whole epochs",
        ),
        (
            "fit --config {config} --model.inference.lr_schedule Plateau --model.inference.lr_schedule.factor 2",
            "--model.inference.lr_schedule.factor must be between 0 and 1, got 2.0.",
        ),
        (
            "fit --config {config} --model.inference.lr_schedule Plateau --data.val_split 0",
            "lr_schedule needs a hold-out to watch",
        ),
    ],
)
def test_mistakes_with_checkpoints_and_trainers_get_one_sentence(words, sentence, run, capsys):
    torch.save(without_training_state(read_checkpoint(run / "last.ckpt")), "small.ckpt")
    words = words.format(run=run, config=f"{LENET} {' '.join(SMALL)}").split()
    assert main(words) == 2
    text = printed(capsys)
    assert sentence in text
    assert len(text.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("export --ckpt_path {twin} --removed 0.5", "--ckpt_path is of a network whose weights have no signal"),
        ("prune --ckpt_path {twin}", "--ckpt_path is of a network whose weights have no signal"),
        ("prune --ckpt_path {lrt} --removed [0.5,2]", "--removed must be a share of the weights from 0 to 1, got 2.0."),
        ("prune --ckpt_path {lrt} --removed half", "--removed does not take half; bnn prune --help says what it is."),
        (
            "export --ckpt_path {lrt}",
            "--removed is missing: this method drives no weights to zero by itself; bnn prune",
        ),
        ("export --ckpt_path {lrt} --removed 2", "--removed must be a share of the weights from 0 to 1, got 2.0."),
        (
            "export --ckpt_path {sparse} --format foo",
            "--format does not know foo; it can be Onnx, Pt2, or the class path of your own.",
        ),
        (
            "fit --config {config} --model.method.prior ScaleMixture",
            "--model.method.prior must be one whose KL is exact",
        ),
        ("fit --config {config} --model.method.prior Mixture", "--model.method.prior does not know Mixture; did you"),
        (
            "fit --config {config} --model.method VariationalA --model.method.p 0.7",
            "--model.method.p must be at most 0.5 for VariationalA, whose alpha ends at 1, got 0.7.",
        ),
        (
            "fit --config {config} --model.method MCDropout --model.method.p 1",
            "--model.method.p must be a dropout rate",
        ),
        (
            "fit --config {config} --model.method Sparse --model.method.prune_in_training true "
            "--model.method.parametrisation log_alpha",
            "--model.method.prune_in_training must be false for multiplicative noise",
        ),
        ("fit --config {config} --model.network CIFARNet --model.network.scale 0", "--model.network.scale must be a"),
    ],
)
def test_mistakes_with_methods_and_export_get_one_sentence(words, sentence, run, sparse, capsys):
    paths = {"twin": "checkpoints/twin/version_0/last.ckpt", "lrt": run / "last.ckpt", "sparse": sparse}
    words = words.format(config=f"{LENET} {' '.join(SMALL)}", **paths).split()
    assert main(words) == 2
    text = printed(capsys)
    assert sentence in text
    assert len(text.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            "test --ckpt_path {run}/best.ckpt --model.sampling.draws median",
            "--model.sampling.draws must be one of weights, local, mean, moments, got median.",
        ),
        (
            "test --ckpt_path {run}/best.ckpt --data.ood+=MNIST5k",
            "--data.ood must be images from elsewhere, got MNIST5k",
        ),
        ("test --ckpt_path {run}/best.ckpt --data.ood+=NotMNIST", "NotMNIST was not found: looked for notMNIST_small"),
        ("predict --ckpt_path {run}/best.ckpt --alpha 1.5", "--alpha must be a rate between 0 and 1"),
        ("predict --ckpt_path {run}/best.ckpt --target_risk 0", "--target_risk must be a rate between 0 and 1"),
        (
            "test --ckpt_path {run}/best.ckpt --model.sampling.chunk 0",
            "--model.sampling.chunk must be 1 or more, got 0.",
        ),
    ],
)
def test_mistakes_with_uncertainty_get_one_sentence(words, sentence, run, capsys, monkeypatch):
    def no_internet(*args, **kwargs):
        raise OSError("no internet")

    monkeypatch.setattr("bnn_lightning.data.notmnist.download_url", no_internet)
    assert main(words.format(run=run).split()) == 2
    text = printed(capsys)
    assert sentence in text
    assert text.count("\n") == 1
