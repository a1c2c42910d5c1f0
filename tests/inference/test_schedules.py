import math
from itertools import pairwise

import pytest

from bnn_lightning.inference.kl_weights import Blundell, Constant, LinearWarmup, Soenderby, Standard, kl_weight
from bnn_lightning.inference.learning_rates import LinearDecay


@pytest.mark.parametrize("steps", [1, 7, 188, 5000])
def test_blundell_has_mean_one_and_halves_at_each_step(steps):
    # A mean other than 1 over an epoch would temper the posterior. 5,000 steps reach beyond what float64 can halve.
    weights = [Blundell()(0, step, steps, 20) for step in range(steps)]
    assert sum(weights) / steps == pytest.approx(1, abs=1e-12)
    for weight, following in pairwise(weights):
        if following > 2.3e-308:  # below, float64 is subnormal
            assert weight / following == 2


def test_blundell_in_the_scale_of_the_reference():
    shares = [Blundell(reference_scale=True)(0, step, 188, 20) for step in range(188)]
    assert shares[:3] == pytest.approx([0.5, 0.25, 0.125], abs=1e-12)
    assert sum(shares) == pytest.approx(1, abs=1e-12)


def test_a_weight_is_a_number_or_the_name_of_a_schedule():
    # A name that is misspelt must not pass for a weight of its own.
    assert kl_weight(1)(0, 0, 188, 20) == kl_weight(1.0)(0, 0, 188, 20) == 1.0
    assert isinstance(kl_weight("Blundell"), Blundell)
    assert kl_weight("Standard")(3, 5, 188, 20) == Standard()(0, 0, 1, 1) == 1.0
    with pytest.raises(ValueError, match=r"^kl_weight must be a number or one of Blundell, .* got 'Blundel'\.$"):
        kl_weight("Blundel")
    with pytest.raises(ValueError, match=r"^kl_weight must be a number from 0 up, or a schedule, got -1\.$"):
        kl_weight(-1)
    with pytest.raises(ValueError, match=r"^weight must be a number from 0 up, got nan\.$"):
        Constant(float("nan"))


def test_the_weight_warms_up_from_the_fifth_epoch_over_fifteen():
    # As published: none for five epochs, then in equal steps to 1 over fifteen.
    ramp = LinearWarmup(start=5, length=15)
    assert [ramp(epoch, 0, 188, 200) for epoch in (4, 5, 12, 19, 20)] == pytest.approx([0, 0, 7 / 15, 14 / 15, 1])
    assert [ramp.settled(epoch, 200) for epoch in (0, 19, 20, 199)] == [False, False, True, True]


def test_the_weight_warms_up_over_a_fraction_of_the_run():
    ramp = LinearWarmup(length=0.3)
    assert [ramp(epoch, 0, 188, 20) for epoch in (0, 3, 6, 19)] == pytest.approx([0, 0.5, 1, 1])
    assert [ramp.settled(epoch, 20) for epoch in (5, 6)] == [False, True]
    assert LinearWarmup(length=0)(0, 0, 1, 20) == 1
    with pytest.raises(ValueError, match=r"^length must be whole epochs, or a fraction .* got 1\.5\.$"):
        LinearWarmup(length=1.5)
    with pytest.raises(ValueError, match=r"^start must be whole epochs.* got nan"):
        LinearWarmup(start=math.nan)


def test_a_warm_up_within_an_epoch_rises_with_its_steps():
    ramp = LinearWarmup(length=0.5)
    assert [ramp(0, step, 100, 1) for step in (0, 25, 50, 75)] == pytest.approx([0, 0.5, 1, 1])
    assert [ramp(0, step, 100, 2) for step in (0, 99)] == [0, 0]  # a whole epoch


def test_the_weight_warms_up_to_a_tempered_one():
    ramp = LinearWarmup(start=2, length=4, peak=0.1)
    assert [ramp(epoch, 0, 188, 20) for epoch in (1, 2, 4, 6, 19)] == pytest.approx([0, 0, 0.05, 0.1, 0.1])
    assert ramp.settled(6, 20)
    tenths = LinearWarmup(start=0.1, length=0.4)  # of 6 epochs: 3.0000000000000004 in floating point
    assert [tenths.settled(epoch, 6) for epoch in (2, 3)] == [False, True]
    with pytest.raises(ValueError, match=r"^peak must be a positive number such as 1, got 0\.$"):
        LinearWarmup(peak=0)


def test_soenderbys_weight_is_one_after_a_quarter_of_the_run():
    assert [Soenderby()(epoch, 0, 188, 20) for epoch in (0, 1, 4, 5, 19)] == pytest.approx([0, 0.2, 0.8, 1, 1])
    assert Soenderby()(0, 0, 188, 3) == 0  # the reference divides by zero here
    assert Soenderby()(1, 0, 188, 3) == 1
    assert [Soenderby().settled(epoch, 3) for epoch in (0, 1)] == [False, True]


def rates(schedule, lr):
    return [lr * schedule.factor(epoch, 200) for epoch in (0, 50, 100, 150, 199)]


def test_learning_rates_are_those_of_the_published_formulas():
    # The published formulas, written out, over the whole run of 200 epochs.
    assert rates(LinearDecay(), 1e-3) == pytest.approx([1e-3 * (1 - e / 200) for e in (0, 50, 100, 150, 199)])
    hold = LinearDecay(start=100)
    assert rates(hold, 1e-3) == pytest.approx([1e-3 * min(1, 2 - e / 100) for e in (0, 50, 100, 150, 199)])
    assert rates(LinearDecay(), 2e-4) == pytest.approx([1e-4 * (2 - e / 100) for e in (0, 50, 100, 150, 199)])
    half = LinearDecay(end=100, end_factor=0.5)
    assert rates(half, 2e-4) == pytest.approx([2e-4, 1.5e-4, 1e-4, 1e-4, 1e-4])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"start": -1}, "start must be an epoch from 0 up, got -1."),
        ({"start": 5, "end": 5}, r"end must be an epoch after start (5), got 5."),
        ({"end_factor": 2.0}, "end_factor must be from 0 to 1, got 2.0."),
    ],
)
def test_decays_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match="must be") as error:
        LinearDecay(**settings)
    assert str(error.value) == message
