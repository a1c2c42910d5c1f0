"""TensorBoard's pages beside the curves."""

from bnn_lightning.reporting.tensorboard import hyper_parameters


def test_hyper_parameters_are_what_trains_a_network():
    config = {
        "seed_everything": 3,
        "model": {
            "network": {"class_path": "bnn_lightning.networks.study_nets.LeNet", "init_args": {"num_classes": 10}},
            "method": {"class_path": "LRT", "init_args": {"prior_sigma": 0.1, "rho_init": [-5.0, 0.1], "prior": None}},
            "inference": {"class_path": "bnn_lightning.Variational", "init_args": {"lr": 0.001}},
            "sampling": {"draws": "mean"},
        },
        "data": {"class_path": "MNIST", "init_args": {"root": "somewhere", "batch_size": 256, "seed": 0}},
        "trainer": {"max_epochs": 20, "precision": None},
    }
    assert hyper_parameters(config) == {
        "seed": 3,
        "network": "LeNet",
        "network.num_classes": 10,
        "method": "LRT",
        "method.prior_sigma": 0.1,
        "method.rho_init": "[-5.0, 0.1]",
        "inference": "Variational",
        "inference.lr": 0.001,
        "data": "MNIST",
        "root": "somewhere",
        "batch_size": 256,
        "data seed": 0,
        "epochs": 20,
    }
