"""Mean and standard deviation that were given instead of computed, such as those of a pretrained network's images."""

Numbers = float | list[float]


def check_mean_and_std(mean: Numbers | None, std: Numbers | None, normalize: bool) -> None:
    """Refuses numbers that cannot normalise images on a scale where 255 is 1.

    Raises:
        ValueError: when only one of the two is given, ``normalize`` is false, or a number is out of range.
    """
    if (mean is None) != (std is None):
        raise ValueError(f"mean must be given together with std, got {mean} and {std}.")
    if mean is None or std is None:
        return
    if not normalize:
        raise ValueError(f"mean must be null where normalize is false, got {mean}.")
    for name, numbers, lowest in (("mean", _as_list(mean), "0"), ("std", _as_list(std), "above 0")):
        in_range = all(0 <= number <= 1 and (name == "mean" or number > 0) for number in numbers)
        if not numbers or not in_range:
            scale = "; divide by 255" if numbers and all(1 <= number <= 255 for number in numbers) else ""
            raise ValueError(
                f"{name} must be numbers from {lowest} to 1, on a scale where 255 is 1, got {numbers}{scale}."
            )


def per_channel(mean: Numbers | None, std: Numbers | None, channels: int) -> tuple[list[float], list[float]]:
    """Mean and std for each channel; empty lists where none were given.

    Raises:
        ValueError: when there are several, but not one for each channel.
    """
    if mean is None or std is None:
        return [], []
    result = []
    for name, numbers in (("mean", _as_list(mean)), ("std", _as_list(std))):
        if len(numbers) not in (1, channels):
            raise ValueError(
                f"{name} must be one number or one for each channel ({channels}), got {numbers}; channels converts "
                "images to 1 or 3 channels."
            )
        result.append([float(number) for number in numbers] * (channels // len(numbers)))
    return result[0], result[1]


def _as_list(numbers: Numbers) -> list[float]:
    return list(numbers) if isinstance(numbers, list | tuple) else [numbers]
