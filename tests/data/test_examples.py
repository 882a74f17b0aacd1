"""Scanning folders: all that is usable, all problems at once, nothing touched."""

import os
from pathlib import Path

import pytest

from tests.nasty_folder import TRIGGER, Nasty, build, picture, snapshot
from trainers.config import DataConfig
from trainers.data.buckets import plan, report
from trainers.data.examples import scan
from trainers.data.images import open_picture, pixels
from trainers.data.types import Scan
from trainers.errors import UserError


@pytest.fixture(scope="module")
def nasty(tmp_path_factory) -> Nasty:
    return build(tmp_path_factory.mktemp("nasty") / "my 'pictures' \u00fc")


@pytest.fixture(scope="module")
def found(nasty) -> Scan:
    return scan(DataConfig(folders=(str(nasty.folder),), trigger=TRIGGER))


def problem(found: Scan, path: Path, words: str) -> bool:
    return any(p.path == path and words in p.message for p in found.problems)


def test_every_usable_picture_of_the_nasty_folder_is_found(nasty, found):
    assert {e.path.relative_to(nasty.folder).as_posix() for e in found.examples} == set(nasty.usable)


def test_every_broken_file_is_named_with_its_reason_in_one_go(nasty, found):
    for name, words in nasty.broken.items():
        assert problem(found, nasty.folder / name, words), name
    assert {p.path for p in found.problems if p.fatal} == {nasty.folder / name for name in nasty.broken}


def test_what_is_odd_is_said_and_trained_all_the_same(nasty, found):
    for name, words in nasty.odd.items():
        assert problem(found, nasty.folder / name, words), name
    assert {p.path for p in found.problems if not p.fatal} == {nasty.folder / name for name in nasty.odd}


def test_every_problem_is_one_printable_line_with_advice(found):
    for entry in found.problems:
        assert str(entry).isprintable() and str(entry).encode("utf-8")
        assert entry.hint


def test_hidden_and_system_files_are_passed_over_in_silence(found):
    named = {p.path.name for p in found.problems} | {e.path.name for e in found.examples}
    assert not named & {".hidden.png", "Thumbs.db", ".DS_Store", "._plain.png", "ghost.png"}


def test_captions_of_the_nasty_folder_are_read_in_their_encodings(nasty, found):
    captions = {e.path.relative_to(nasty.folder).as_posix(): e.caption for e in found.examples}
    assert captions["cmyk.jpg"] == f"\u201ca {TRIGGER}\u201d at the caf\u00e9, 5 \u20ac"
    assert captions["scan.tiff"] == f"ein {TRIGGER} f\u00fcr alle"
    assert captions["old.bmp"] == f"{TRIGGER}, \u6f22\u5b57"
    assert captions["twin.png"] == captions["twin.jpg"] == f"a {TRIGGER} twin"
    assert captions["first.png"] == captions["f\u00fcchse/deep/er/plain.png"] == f"{TRIGGER} object"
    assert captions["alpha.png"] == "a thing without the word"  # used as written


def test_scanning_planning_and_opening_leave_the_folder_as_it_was(nasty):
    before = snapshot(nasty.folder)
    found = scan(DataConfig(folders=(str(nasty.folder),)))
    for example, crop in zip(found.examples, plan(found.examples, DataConfig(), 64, 16), strict=True):
        image = open_picture(example.path, example.content_hash)
        assert image.size == example.size
        assert pixels(image, crop).shape == (3, crop.bucket.height, crop.bucket.width)
        assert report(example, crop).isprintable()
    assert snapshot(nasty.folder) == before


def test_two_scans_give_the_same_answer(nasty, found):
    again = scan(DataConfig(folders=(str(nasty.folder),), trigger=TRIGGER))
    assert again == found


def test_sizes_are_upright(nasty, found):
    sizes = {e.path.name: e.size for e in found.examples}
    assert sizes["phone.heic"] == sizes["camera.JPG"] == (48, 96)
    assert sizes["panorama.jpg"] == (20_000, 300)


def test_a_picture_without_permission_is_named(tmp_path, monkeypatch):
    for name in ("a.png", "secret.png"):
        picture(32, 32, len(name)).save(tmp_path / name)
    read = Path.read_bytes

    def refuse(path):
        if path.name == "secret.png":
            raise PermissionError(13, "Permission denied")
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    found = scan(DataConfig(folders=(str(tmp_path),)))
    assert [e.path.name for e in found.examples] == ["a.png"]
    assert problem(found, tmp_path / "secret.png", "no permission")


def test_an_unreadable_caption_is_named_and_the_picture_trained(tmp_path, monkeypatch):
    picture(32, 32, 1).save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("a cat")
    read = Path.read_bytes

    def refuse(path):
        if path.suffix == ".txt":
            raise PermissionError(13, "Permission denied")
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    found = scan(DataConfig(folders=(str(tmp_path),), trigger="zorb"))
    assert found.examples[0].caption == "zorb object"
    assert problem(found, tmp_path / "a.txt", "cannot be read")


def test_missing_folders_are_all_named():
    with pytest.raises(UserError) as raised:
        scan(DataConfig(folders=("/nowhere/cats", "/nowhere/dogs")))
    assert "cats" in str(raised.value) and "dogs" in str(raised.value) and raised.value.hint


def test_a_file_in_place_of_a_folder_and_no_folder_at_all_are_said(tmp_path):
    picture(32, 32, 1).save(tmp_path / "a.png")
    with pytest.raises(UserError, match="a.png is a file"):
        scan(DataConfig(folders=(str(tmp_path / "a.png"),)))
    with pytest.raises(UserError, match="No picture folder"):
        scan(DataConfig())


def test_an_empty_folder_is_said(tmp_path):
    with pytest.raises(UserError, match="no pictures in"):
        scan(DataConfig(folders=(str(tmp_path),)))


def test_a_folder_of_broken_pictures_names_them_all(tmp_path):
    for name in ("a.png", "b.jpg"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(UserError, match="None of the pictures") as raised:
        scan(DataConfig(folders=(str(tmp_path),)))
    assert "a.png" in raised.value.message and "b.jpg" in raised.value.message


def test_kohya_folders_give_repeats_and_words(tmp_path):
    places = {"10_zorb dog": (10, "zorb dog"), "10_zorb dog/close": (10, "zorb dog"), "5_": (5, "zorb object"),
              "2024_holiday": (3, "zorb object"), "plain": (3, "zorb object")}  # fmt: skip
    for seed, name in enumerate(places):
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
        picture(32, 32, seed).save(tmp_path / name / "a.png")
    (tmp_path / "10_zorb dog" / "b.txt").write_text("zorb in the garden")
    picture(32, 32, 99).save(tmp_path / "10_zorb dog" / "b.png")
    found = scan(DataConfig(folders=(str(tmp_path),), trigger="zorb", repeats=3))
    read = {e.path.relative_to(tmp_path).as_posix(): (e.repeats, e.caption) for e in found.examples}
    assert read == {f"{name}/a.png": told for name, told in places.items()} | {
        "10_zorb dog/b.png": (10, "zorb in the garden")
    }
    assert problem(found, tmp_path / "10_zorb dog", "10 times")
    inside = scan(DataConfig(folders=(str(tmp_path / "10_zorb dog"),)))
    assert {e.repeats for e in inside.examples} == {10}


def test_overlapping_folders_count_each_picture_once(tmp_path):
    (tmp_path / "in").mkdir()
    picture(32, 32, 1).save(tmp_path / "in" / "a.png")
    found = scan(DataConfig(folders=(str(tmp_path), str(tmp_path / "in"), str(tmp_path) + os.sep)))
    assert len(found.examples) == 1 and not found.problems


def test_captions_without_the_trigger_are_one_problem_that_counts_them(tmp_path):
    for i in range(5):
        picture(32, 32, i).save(tmp_path / f"{i}.png")
        (tmp_path / f"{i}.txt").write_text("a Zorb" if i == 0 else "a cat")
    found = scan(DataConfig(folders=(str(tmp_path),), trigger="zorb"))
    assert len(found.problems) == 1 and "3 more" in found.problems[0].message


def test_progress_counts_to_the_number_of_pictures(tmp_path):
    for i in range(4):
        picture(32, 32, i).save(tmp_path / f"{i}.png")
    seen = []
    scan(DataConfig(folders=(str(tmp_path),)), lambda done, total: seen.append((done, total)))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_settings_may_call_a_folder_by_a_name_of_kohyas(tmp_path):
    for name in ("cats", "5_dogs", "5_dogs/2_puppies"):
        (tmp_path / name).mkdir()
        picture(32, 32, len(name)).save(tmp_path / name / "a.png")
    folders = tuple(str(tmp_path / name) for name in ("cats", "5_dogs"))
    found = scan(DataConfig(folders=folders, folder_names=("1500_zorb cat", "")))
    read = {e.path.parent.name: (e.repeats, e.caption) for e in found.examples}
    assert read == {"cats": (1500, "zorb cat"), "5_dogs": (5, "dogs"), "2_puppies": (2, "puppies")}
    assert not problem(found, tmp_path / "cats", "named as in kohya's layout")  # nothing to rename
    only = scan(DataConfig(folders=folders, folder_names=("7_", "3_dog")))
    assert {e.path.parent.name: e.caption for e in only.examples}["cats"] == "object"


def test_pictures_that_are_left_out_are_not_trained_on_nor_spoken_of(tmp_path):
    (tmp_path / "in").mkdir()
    for seed, name in enumerate(("a.png", "b.png", "in/a.png", "in/cafe\u0301 [1] 漢字.png", "in/c.png")):
        picture(32, 32, seed).save(tmp_path / name)
    (tmp_path / "broken.png").write_bytes(b"")
    before = snapshot(tmp_path)
    left_out = ("a.png", "in/caf\u00e9 [1] 漢字.png", str(tmp_path / "in" / "c.png"), "broken.png")
    found = scan(DataConfig(folders=(str(tmp_path),), leave_out=left_out))
    assert [e.path.relative_to(tmp_path).as_posix() for e in found.examples] == ["b.png", "in/a.png"]
    assert not found.problems and snapshot(tmp_path) == before


def test_what_is_left_out_but_is_not_there_is_named(tmp_path):
    picture(32, 32, 1).save(tmp_path / "a.png")
    found = scan(DataConfig(folders=(str(tmp_path),), leave_out=("b.png",)))
    assert problem(found, Path("b.png"), "no such file") and len(found.examples) == 1
    with pytest.raises(UserError, match="but those that are left out"):
        scan(DataConfig(folders=(str(tmp_path),), leave_out=("a.png",)))
