"""Pictures come in under safe names with their captions; what is wrong is named; what was dropped stays as it was."""

import zipfile
from pathlib import Path

import pytest
from PIL import Image

from app import concepts, projects
from app.paths import CONCEPTS, Home
from trainers.errors import UserError


def save(path: Path, colour: tuple[int, int, int] = (200, 30, 30), size: tuple[int, int] = (40, 30)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


def held(project: projects.Project) -> dict[str, str | None]:
    """Picture -> caption, of a project's own folder; no other file may be there."""
    folder = Path(project.pictures)
    files = sorted(folder.iterdir())
    pictures = [file for file in files if file.suffix != ".txt"]
    captions = {file.stem: file.read_text("utf-8") for file in files if file.suffix == ".txt"}
    assert captions.keys() <= {picture.stem for picture in pictures}
    return {picture.name: captions.get(picture.stem) for picture in pictures}


@pytest.fixture
def project(place):
    return projects.create_own(place, "Cat", "object")


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("Größe ‘quotes’ 漢字.PNG", "Größe ‘quotes’ 漢字.PNG"),
        ("<img src=x onerror=alert(1)>.png", "_img src=x onerror=alert(1)_.png"),
        ("../../etc/passwd.png", "_.._etc_passwd.png"),
        ("CON.png", "CON_.png"),
        (" . .png", "picture.png"),
        ("a\nb\0.png", "a_b_.png"),
        ("e\u0301.png", "\u00e9.png"),
    ],
)
def test_names_are_safe_on_every_system_and_stay_readable(name, safe):
    assert concepts.safe_name(name) == safe


def test_long_names_are_cut():
    assert len(concepts.safe_name("漢" * 300 + ".png").encode()) <= 160


def test_pictures_are_copied_with_their_captions(project, tmp_path):
    files = [save(tmp_path / "in" / "a.png"), save(tmp_path / "in" / "B c.JPG", (1, 2, 3))]
    (tmp_path / "in" / "a.txt").write_text("a cat", "utf-8")
    files += [tmp_path / "in" / "a.txt"]
    before = {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in files}
    added = concepts.add(project, files)
    assert (added.pictures, added.captions, added.known, added.skipped) == (2, 1, 0, [])
    assert held(project) == {"a.png": "a cat", "B c.JPG": None}
    assert before == {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in files}


def test_the_same_picture_comes_in_once_and_equal_names_get_numbers(project, tmp_path):
    first = save(tmp_path / "1" / "a.png")
    others = [save(tmp_path / "2" / "A.png", (0, 9, 0)), save(tmp_path / "3" / "a.jpg", (0, 0, 9))]
    concepts.add(project, [first])
    added = concepts.add(project, [first, *others])
    assert (added.pictures, added.known) == (2, 1)
    assert set(held(project)) == {"a.png", "A-2.png", "a-3.jpg"}  # no two share a caption file, on any system


def test_captions_of_equal_names_find_the_pictures_they_came_with(project, tmp_path):
    files = []
    for number, folder in enumerate(("x", "y")):  # as a browser hands over a folder with two folders in it
        files += [save(tmp_path / folder / "1.png", (90 * number, 0, 0)), tmp_path / folder / "1.txt"]
        files[-1].write_text(f"from {folder}", "utf-8")
    concepts.add(project, files)
    assert held(project) == {"1.png": "from x", "1-2.png": "from y"}


def test_a_caption_may_come_later_but_replaces_none(project, tmp_path):
    caption = tmp_path / "a.txt"
    concepts.add(project, [save(tmp_path / "a.png")])
    caption.write_text("first", "utf-8")
    assert concepts.add(project, [caption]).captions == 1
    caption.write_text("second", "utf-8")
    assert "has a caption already" in concepts.add(project, [caption]).skipped[0]
    assert held(project) == {"a.png": "first"}


def test_zip_files_are_unpacked_inside_the_project_only(project, tmp_path):
    picture = save(tmp_path / "p.png").read_bytes()
    other = save(tmp_path / "q.png", (9, 9, 9)).read_bytes()
    archive = tmp_path / "all.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("../../escaped.png", picture)
        file.writestr("sub/漢字.png", other)
        file.writestr("sub/漢字.txt", "a sign")
        file.writestr("__MACOSX/sub/._漢字.png", b"x")
        file.writestr("readme.pdf", b"x")
    added = concepts.add(project, [archive])
    assert held(project) == {"escaped.png": None, "漢字.png": "a sign"}
    assert (added.pictures, added.captions) == (2, 1)
    assert added.skipped == ["readme.pdf is no picture that can be used."]
    assert not list(tmp_path.rglob("escaped.png"))[1:]


def test_zip_bombs_and_broken_zip_files_are_refused_in_words(project, tmp_path, monkeypatch):
    broken = tmp_path / "broken.zip"
    broken.write_bytes(b"PK\3\4 nothing")
    bomb = tmp_path / "bomb.zip"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a.png", bytes(5_000_000))
    monkeypatch.setattr(concepts, "ZIP_BYTES", 1_000_000)
    added = concepts.add(project, [broken, bomb])
    assert "broken.zip is damaged" in added.skipped[0] and "bomb.zip holds more" in added.skipped[1]
    assert held(project) == {}


def test_a_zip_file_that_lies_about_its_sizes_leaves_nothing_behind(project, tmp_path):
    archive = tmp_path / "liar.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a.png", bytes(5_000_000))
    data = archive.read_bytes()
    archive.write_bytes(data.replace((5_000_000).to_bytes(4, "little"), (50).to_bytes(4, "little")))
    added = concepts.add(project, [archive])
    assert "a.png cannot be unpacked" in added.skipped[0] and held(project) == {}


def test_linked_projects_take_no_files(place, pictures, tmp_path):
    linked = concepts.make(place, "Linked", "object", f' "{pictures}" ')
    assert linked.pictures == str(pictures) and not linked.owns_pictures
    with pytest.raises(UserError, match="are linked from"):
        concepts.add(linked, [save(tmp_path / "a.png")])


def test_wrong_names_and_folders_are_sentences(place, project, tmp_path):
    (tmp_path / "empty").mkdir()
    file = save(tmp_path / "a.png")
    cases = [
        ("  ", "", "needs a name"),
        ("Cat", "", "already a project"),
        ("Cat", str(tmp_path), "already a project"),
        ("Dog", str(tmp_path / "none"), "no folder"),
        ("Dog", str(tmp_path / "empty"), "no picture"),
        ("Dog", str(file), "is a file"),
    ]
    for name, linked, words in cases:
        with pytest.raises(UserError, match=words):
            concepts.make(place, name, "object", linked)
    assert projects.list_projects(place) == [project]


def test_a_sample_is_a_copy_with_its_captions(place):
    project = concepts.use_sample(place, "style")
    bundled = CONCEPTS / "fluent"
    assert (project.kind, project.trigger, project.owns_pictures) == ("style", "fluent", True)
    assert held(project)["banana.png"] == (bundled / "banana.txt").read_text("utf-8")
    assert len(held(project)) == len(list(bundled.glob("*.png")))
    assert concepts.use_sample(place, "style") == project and concepts.use_sample(place, "mascot") != project


def test_a_project_is_changed_on_disk_and_what_else_it_says_stays(place, project):
    file = project.folder / "project.toml"
    file.write_text(file.read_text("utf-8") + 'note = "mine"\n', "utf-8")
    changed = projects.update(project, trigger="zorb", left_out=("a.png", "sub/b.png"))
    assert projects.find(place, project.slug) == changed
    assert 'note = "mine"' in file.read_text("utf-8")
    assert projects.data_settings(changed)["left_out"] == ["a.png", "sub/b.png"]


def test_a_moved_home_finds_its_own_pictures_again(place, project, tmp_path):
    elsewhere = Home(tmp_path / "elsewhere")
    elsewhere.root.mkdir()
    place.projects.rename(elsewhere.projects)
    found = projects.list_projects(elsewhere)
    assert found[0].owns_pictures and Path(found[0].pictures).is_dir()
