"""Thumbnails are made once per state of a picture, upright and small, and shown even where none can be kept."""

import io
import os

import pytest
from PIL import Image

from app.gui import pictures
from app.gui.pictures import thumbnail
from app.paths import Home


@pytest.fixture
def large(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    file = tmp_path / "large.jpg"
    Image.linear_gradient("L").resize((2000, 1000)).convert("RGB").save(file, exif=exif)
    return file


def size(data: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(data), formats=["WEBP"]) as made:
        return made.size


def kept(home: Home) -> None:
    """Wait until what was made is written."""
    pictures._keepers.submit(lambda: None).result()


@pytest.mark.parametrize("side", pictures.SIDES)
def test_a_picture_comes_upright_and_within_its_side(large, tmp_path, side):
    assert size(thumbnail(large, side, Home(tmp_path))) == (side // 2, side)


def test_it_is_made_again_only_when_the_picture_changes(large, tmp_path, monkeypatch):
    made, make = [], pictures._make
    monkeypatch.setattr(pictures, "_make", lambda *which: (made.append(which), make(*which))[1])
    first = thumbnail(large, 320, Home(tmp_path))
    kept(Home(tmp_path))
    assert thumbnail(large, 320, Home(tmp_path)) == first and len(made) == 1
    os.utime(large, ns=(1, 1))
    assert thumbnail(large, 320, Home(tmp_path)) == first and len(made) == 2


def test_it_is_shown_where_it_cannot_be_kept(large, tmp_path):
    (tmp_path / "cache").write_text("in the way")
    home = Home(tmp_path)
    assert size(thumbnail(large, 160, home)) == (80, 160)
    kept(home)
    assert (tmp_path / "cache").read_text() == "in the way"
