"""What the caveats of results mean in plain words, and what helps."""

import re
from typing import NamedTuple

from bnn_lightning.checkpoints.summary import NOT_CONVERGED


class Explained(NamedTuple):
    """A caveat, what it means, and what helps; the last two are empty for a note that speaks for itself."""

    caveat: str
    meaning: str = ""
    cure: str = ""


def explained(caveat: str, inference: str = "Variational") -> Explained:
    """A caveat of results with its explanation.

    Args:
        caveat: the sentence or the words.
        inference: the name of the class that trained, whose settings are what can help.
    """
    for pattern, meaning, cure in _EXPLANATIONS:
        if re.search(pattern, caveat):
            return Explained(caveat, meaning, _CURES_OF.get((inference, pattern), cure))
    return Explained(caveat)


_UNFORMED = f"^{NOT_CONVERGED}$"
_CURES_OF = {
    ("IVON", _UNFORMED): (
        "Train longer or on more examples, or with a wider prior. Of few examples only a small network can have a "
        "posterior."
    ),
}
_EXPLANATIONS = (
    (
        _UNFORMED,
        "The weights have not found their widths yet: elbo/N is below that of the untrained prior, which guesses. The "
        "mean weights can be accurate all the same; the uncertainty is not yet that of a posterior.",
        "Train longer or on more examples; let the widths learn faster (--model.inference.rho_lr_factor 10); or use "
        "natural gradients (--model.inference IVON --model.method.mu_init he). Of few examples only a small network "
        "can have a posterior.",
    ),
    (
        "^tempered$",
        "The KL did not have weight 1 in the last epoch, so the posterior is wider or narrower than the ELBO's.",
        "Train until the warm-up is over, or with --model.inference.kl_weight 1.",
    ),
    (
        "^elbo/N is no bound$",
        "The prior of this method is improper: elbo/N is a regularised loss, and cannot be compared with others.",
        "Compare by nll; for a bound use BBB, LRT or Flipout.",
    ),
    (
        "^not learning$",
        "After this training the network is hardly better than guessing.",
        "Try another --model.inference.lr. Where Adam trains a method with a KL, let it rise from 0: "
        "--model.inference.kl_weight LinearWarmup.",
    ),
    (
        "^not calibrated$",
        "There is no calibration for this way of predicting: no temperature, no accept rule, no prediction sets.",
        "Train to the end with a hold-out (--data.val_split 0.2).",
    ),
    (
        r"^calibrated with \d+ samples",
        "The calibration was fitted with another number of samples than was tested with.",
        "Test with the same number: --model.sampling.test_samples.",
    ),
    (
        "^(temperature from only|calibrated on only)",
        "The calibration images are few: what was fitted to them has a large error.",
        "Hold out more (--data.val_split), or train on a larger data set.",
    ),
    (
        "^(temperature|scale) at its bound",
        "The calibration images do not tell how confident to be: nearly all, or nearly none, are predicted well.",
        "Hold out more images (--data.val_split).",
    ),
    (
        "^ECE of only",
        "With so few test images the ECE is above 0 even where the confidences are right.",
        "Test on more images, or compare by nll and Brier score.",
    ),
    (
        "^tested on only",
        "So few examples say little, and their errors too little: a coverage of 100 % may be chance.",
        "Test on more examples.",
    ),
    (
        "(selection|calibration) examples are training examples$",
        "What is chosen or fitted on examples that the network has learnt, as best checkpoint and temperature are, "
        "is too confident on new ones.",
        "Remove copies from the training data, or hold out other examples (a folder val).",
    ),
    (
        "are training examples$",
        "The network has learnt these very examples, so that the results are better than on new ones.",
        "Remove copies from the test set. A changed copy of the training folder is divided in another way by the seed: "
        "test in the folder itself, or put new pictures into a folder test.",
    ),
    (
        "^no images of",
        "Nothing is known of these classes; they are in no mean over classes.",
        "Add pictures of them to the test set.",
    ),
    (
        "not shown to be told from the test images$",
        "No uncertainty is higher there than on the test images, so that it gives no warning of such images.",
        "Try other methods, an ensemble, or features of a network that was trained on more; test on more of these "
        "images.",
    ),
    (
        "^(balanced accuracy )?not shown to be ",
        "What the network gains over an answer that looks at no image is within the error of so many test images.",
        "Test on more images, or train longer; where classes differ much in size: --data.class_weights balanced.",
    ),
    (
        "loss is no ELBO$|^(class weights|balanced sampling|label smoothing)",
        "The training loss was another one than that of the images as they are; nll and elbo/N are without it.",
        "",
    ),
    (
        "^letters rendered from fonts",
        "The letters are drawn in fonts, so that no download is needed. They are easier to tell from digits than real "
        "ones: no result to compare with notMNIST.",
        "With internet: --data.ood '[NotMNIST]'.",
    ),
)
