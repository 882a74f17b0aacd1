"""Captions are written beside their pictures as the trainer reads them, and every change can be taken back."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from app import captions_edit, projects
from app.captions_edit import Edit
from trainers.data.captions import read_bytes, read_caption
from trainers.errors import UserError

KILLED_AT_THE_SECOND = """
import os, pathlib, sys
from app import captions_edit, projects
from app.paths import Home

project, replace, calls = projects.list_projects(Home(pathlib.Path(sys.argv[1])))[0], captions_edit._replace, []
captions_edit._replace = lambda *one: (calls.append(one), os._exit(9) if calls[1:] else replace(*one))
captions_edit.write(project, {pathlib.Path(project.pictures, f"{i}.png"): "new" for i in range(3)}, "many")
"""


@pytest.fixture
def project(place, pictures):
    """Three pictures of a linked folder: one captioned in an old encoding, one with another ending, one without."""
    (pictures / "0.txt").write_bytes("Ein Käfer".encode("cp1252"))
    (pictures / "1.caption").write_text("two, tags", "utf-8")
    return projects.create(place, "x", pictures, "object")


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.mark.parametrize(
    ("edit", "before", "after"),
    [
        (Edit("front", "sks"), "a cat, red", "sks, a cat, red"),
        (Edit("front", "A cat"), "a cat, red", "a cat, red"),
        (Edit("front", "sks"), "", "sks"),
        (Edit("back", "blue"), "a cat,", "a cat, blue"),
        (Edit("remove", "RED"), "a cat, red , big", "a cat, big"),
        (Edit("remove", "re"), "a cat,  red", "a cat,  red"),
        (Edit("replace", "cat", "dog"), "a cat, cats", "a dog, dogs"),
        (Edit("replace", ", red", ""), "a cat, red", "a cat"),
        (Edit("replace", ".*", "x"), "a cat", "a cat"),
        (Edit("prefix", "photo of"), "a cat", "photo of a cat"),
        (Edit("prefix", "photo of"), "photo of a cat", "photo of a cat"),
        (Edit("front", "  "), "a cat", "a cat"),
    ],
)
def test_edits(edit, before, after):
    assert edit(before) == after


def test_a_caption_is_written_as_utf_8_into_the_file_that_was_there(project, pictures):
    captions_edit.write(project, {pictures / "1.png": "漢字 <b>\n  two\0"}, "a")
    captions_edit.write(project, {pictures / "2.png": "new"}, "b")
    assert (pictures / "1.caption").read_text("utf-8") == "漢字 <b> two"
    assert (pictures / "2.txt").read_text("utf-8") == "new"
    assert read_caption(pictures / "1.png") == "漢字 <b> two"


def test_undo_brings_back_every_byte_in_turn(project, pictures):
    states = [contents(pictures)]
    captions_edit.write(project, {pictures / "0.png": "a beetle"}, "the caption of 0.png")
    states.append(contents(pictures))
    many = captions_edit.changes(
        {pictures / f"{i}.png": read_caption(pictures / f"{i}.png") for i in range(3)}, Edit("front", "sks")
    )
    assert captions_edit.write(project, many, "sks added in front") == 3
    assert captions_edit.undoable(project)[0] == "sks added in front"
    assert captions_edit.undo(project) == "Taken back: sks added in front (3 captions)."
    assert contents(pictures) == states[1]
    captions_edit.undo(project)
    assert contents(pictures) == states[0]
    assert captions_edit.undoable(project) == ("", "")
    with pytest.raises(UserError, match="no change"):
        captions_edit.undo(project)


def test_undo_leaves_alone_what_others_changed_since(project, pictures):
    captions_edit.write(project, {pictures / "0.png": "mine", pictures / "2.png": "mine"}, "x")
    (pictures / "0.txt").write_text("theirs", "utf-8")
    assert "1 caption was changed elsewhere" in captions_edit.undo(project)
    assert (pictures / "0.txt").read_text("utf-8") == "theirs" and not (pictures / "2.txt").exists()


def test_captions_of_a_linked_folder_are_taken_back(project, pictures, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.copyfile(pictures / "0.png", elsewhere / "cat.png")
    (elsewhere / "cat.txt").write_text("old", "utf-8")
    (pictures / "linked").symlink_to(elsewhere)
    captions_edit.write(project, {pictures / "linked" / "cat.png": "new"}, "x")
    assert (elsewhere / "cat.txt").read_text("utf-8") == "new"
    assert captions_edit.undo(project) == "Taken back: x (1 caption)."
    assert (elsewhere / "cat.txt").read_text("utf-8") == "old" and captions_edit.undoable(project) == ("", "")


@pytest.mark.parametrize("where", ["../{}/secret.txt", "{}/secret.txt", "linked/notes.txt", "linked/0.png"])
def test_undo_writes_beside_the_projects_pictures_alone_whatever_its_list_names(where, project, pictures, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.copyfile(pictures / "0.png", elsewhere / "0.png")
    for name in ("secret.txt", "notes.txt"):
        (elsewhere / name).write_text("known", "utf-8")
    (pictures / "linked").symlink_to(elsewhere)
    before = contents(elsewhere)
    name = os.path.join(pictures, where.format("elsewhere" if where.startswith("..") else elsewhere))
    change = {"what": "x", "before": {name: None}, "after": {name: "known"}}
    (project.folder / captions_edit.HISTORY).write_text(json.dumps(change), "utf-8")
    told = "1 caption was found beside no picture of this project and left alone."
    assert captions_edit.undo(project) == f"Taken back: x (0 captions). {told}"
    assert contents(elsewhere) == before


def test_what_could_not_be_taken_back_comes_up_again_after_all_other_changes(project, pictures):
    for caption in ("one", "two"):
        captions_edit.write(project, {pictures / "0.png": caption, pictures / "2.png": caption}, caption)
    pictures.rename(pictures.with_name("away"))
    told = "Taken back: two (0 captions). 2 captions were found beside no picture of this project and left alone."
    assert captions_edit.undo(project) == told and captions_edit.undoable(project)[0] == "one"
    captions_edit.undo(project)
    pictures.with_name("away").rename(pictures)
    assert [captions_edit.undo(project) for _ in range(2)] == [
        "Taken back: two (2 captions).",
        "Taken back: one (2 captions).",
    ]
    assert (pictures / "0.txt").read_bytes() == "Ein Käfer".encode("cp1252") and not (pictures / "2.txt").exists()


def test_what_changes_nothing_is_no_change(project, pictures):
    assert captions_edit.write(project, {pictures / "0.png": " Ein  Käfer ", pictures / "2.png": ""}, "x") == 0
    assert captions_edit.undoable(project) == ("", "")
    assert (pictures / "0.txt").read_bytes() == "Ein Käfer".encode("cp1252")


def test_a_folder_that_cannot_be_written_is_a_sentence(project, pictures, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(captions_edit.os, "replace", refuse)
    before = contents(pictures)
    with pytest.raises(UserError, match="cannot be written: Permission denied"):
        captions_edit.write(project, {pictures / "0.png": "x"}, "x")
    assert contents(pictures) == before


def test_what_a_killed_change_of_many_captions_has_changed_is_taken_back(place, project, pictures):
    before = contents(pictures)
    killed = subprocess.run([sys.executable, "-c", KILLED_AT_THE_SECOND, place.root], timeout=120)
    assert killed.returncode == 9 and (pictures / "0.txt").read_text("utf-8") == "new"
    assert {**contents(pictures), "0.txt": before["0.txt"]} == before
    assert captions_edit.undo(project) == "Taken back: many (1 caption)."
    assert contents(pictures) == before and captions_edit.undoable(project) == ("", "")


def test_a_change_that_cannot_be_noted_changes_no_caption(project, pictures, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    before = contents(pictures)
    with monkeypatch.context() as full:
        full.setattr(captions_edit, "write_whole", refuse)
        with pytest.raises(UserError, match="list of changes .* cannot be written: The disk is full"):
            captions_edit.write(project, {pictures / "0.png": "x", pictures / "2.png": "x"}, "x")
    assert contents(pictures) == before and captions_edit.undoable(project) == ("", "")


def test_captions_written_before_one_that_cannot_be_are_taken_back(project, pictures, monkeypatch):
    replace, before = captions_edit._replace, contents(pictures)

    def refuse(file, content):
        if file.name == "1.caption":
            raise PermissionError(errno.EACCES, "Permission denied")
        replace(file, content)

    monkeypatch.setattr(captions_edit, "_replace", refuse)
    with pytest.raises(UserError, match="1.caption cannot be written"):
        captions_edit.write(project, {pictures / f"{i}.png": "new" for i in range(3)}, "many")
    assert {**contents(pictures), "0.txt": before["0.txt"]} == before
    assert captions_edit.undo(project) == "Taken back: many (1 caption)."
    assert contents(pictures) == before


@pytest.mark.parametrize("make", [os.mkdir, getattr(os, "mkfifo", os.mkdir)])
def test_what_is_no_ordinary_file_is_not_written_over_and_no_other_caption_either(make, project, pictures, monkeypatch):
    def read(file):
        assert file.is_file()  # reading a pipe would wait for ever
        return read_bytes(file)

    monkeypatch.setattr(captions_edit, "read_bytes", read)
    make(pictures / "2.txt")
    with pytest.raises(UserError, match="2.txt cannot be written: it is not an ordinary file"):
        captions_edit.write(project, {pictures / "0.png": "new", pictures / "2.png": "new"}, "many")
    assert (pictures / "0.txt").read_bytes() == "Ein Käfer".encode("cp1252") and captions_edit.undoable(project) == (
        "",
        "",
    )


def test_only_the_change_that_is_named_is_taken_back(project, pictures):
    def edit(caption: str) -> str:
        captions_edit.write(project, {pictures / "0.png": caption}, "the caption of 0.png")
        return captions_edit.undoable(project)[1]

    marks = [edit("one"), edit("two"), edit("one"), edit("two")]
    assert len(set(marks)) == 4
    for late in marks[:3]:
        with pytest.raises(UserError, match="changed again since"):
            captions_edit.undo(project, late)
    captions_edit.undo(project, marks[3])
    with pytest.raises(UserError, match="changed again since"):
        captions_edit.undo(project, marks[3])  # a second click on the same button
    assert read_caption(pictures / "0.png") == "one" and captions_edit.undoable(project)[1] == marks[2]
