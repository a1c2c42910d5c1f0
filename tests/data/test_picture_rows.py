"""Rows of a table matched to pictures, where many of these have one name."""

from pathlib import Path

import pytest

from bnn_lightning.data import picture_rows
from bnn_lightning.data.picture_rows import Matched
from bnn_lightning.preprocessing.pictures import Picture, Walk

COUNT = 300


@pytest.fixture
def pool(tmp_path):
    """A walk of folders that hold one file each, all of the same name; they need not be there."""
    folders = [f"{number:03}" for number in range(COUNT)]
    return Walk(tmp_path, [Picture(tmp_path / each / "x.png", (each, "x.png"), each) for each in folders])


def test_the_work_grows_with_the_pictures_and_not_with_their_square(pool, monkeypatch):
    calls, real = [], picture_rows.composed
    monkeypatch.setattr(picture_rows, "composed", lambda name: calls.append(name) or real(name))
    # As long as the paths on this machine, from another one, and without endings.
    for form in (f"/there/{pool.root.name}/{{}}/x.png", "https://there/{}/x.png", "/data/upload/{}/x"):
        files = [form.format(f"{number:03}") for number in range(COUNT)]
        matched = Matched.of(pool, Path("labels.csv"), files)
        assert [picture.below[0] for picture in matched.found.values()] == [f"{number:03}" for number in range(COUNT)]
        assert (matched.unknown, matched.by_name) == ([], [])
    assert len(calls) < 150 * COUNT


def test_a_path_agrees_with_the_picture_that_shares_most_of_its_end(tmp_path):
    places = ["a/b/x.png", "c/b/x.png", "c/x.png", "b/y.png", "d/b/y.png"]
    pictures = [Picture(tmp_path / place, tuple(place.split("/")), place) for place in places]
    walk = Walk(tmp_path, pictures)
    for file, place in {"0/c/b/x.png": "c/b/x.png", "b/0/c/x.png": "c/x.png", "0/d/b/y": "d/b/y.png"}.items():
        assert Matched.of(walk, Path("t"), [file]).found[file].real == place
    with pytest.raises(
        ValueError, match=r"^labels must tell pictures apart, got 0/b/x.png in t, which may be a/b/x.png and c/b/x.png"
    ):
        Matched.of(walk, Path("t"), ["0/b/x.png"])
    assert Matched.of(walk, Path("t"), ["0/0/z.png"]).unknown == ["0/0/z.png"]
