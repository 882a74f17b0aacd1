"""Pictures come in under safe names with their captions; what is wrong is named; what was dropped stays as it was."""

import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from PIL import Image

from app import concepts, dropped, projects
from tests.app.own_pictures import held
from tests.app.traced_memory import most_bytes
from trainers.errors import UserError


def save(path: Path, colour: tuple[int, int, int] = (200, 30, 30), size: tuple[int, int] = (40, 30)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


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
    assert dropped.safe_name(name) == safe


def test_long_names_are_cut():
    assert len(dropped.safe_name("漢" * 300 + ".png").encode()) <= 160


def test_pictures_are_copied_with_their_captions(project, tmp_path):
    files = [save(tmp_path / "in" / "a.png"), save(tmp_path / "in" / "B c.JPG", (1, 2, 3))]
    (tmp_path / "in" / "a.txt").write_text("a cat", "utf-8")
    files += [tmp_path / "in" / "a.txt"]
    before = {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in files}
    added = dropped.add(project, files)
    assert (added.pictures, added.captions, added.known, added.skipped) == (2, 1, 0, [])
    assert held(project) == {"a.png": "a cat", "B c.JPG": None}
    assert before == {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in files}


def test_the_same_picture_comes_in_once_and_equal_names_get_numbers(project, tmp_path):
    first = save(tmp_path / "1" / "a.png")
    others = [save(tmp_path / "2" / "A.png", (0, 9, 0)), save(tmp_path / "3" / "a.jpg", (0, 0, 9))]
    dropped.add(project, [first])
    added = dropped.add(project, [first, *others])
    assert (added.pictures, added.known) == (2, 1)
    assert set(held(project)) == {"a.png", "A-2.png", "a-3.jpg"}  # no two share a caption file, on any system


def test_copies_into_one_project_at_the_same_time_take_no_name_twice(project, tmp_path, monkeypatch):
    """As two browser tabs do it: both have looked at the names that are there before either gives one."""
    files = [save(tmp_path / place / "a.png", (9 * number, 0, 0)) for number, place in enumerate("xy")]
    met, copied = threading.Barrier(2), dropped._copied

    def slowly(*arguments):
        with suppress(threading.BrokenBarrierError):
            met.wait(0.3)  # for the other copy, which waits outside
        return copied(*arguments)

    monkeypatch.setattr(dropped, "_copied", slowly)
    with ThreadPoolExecutor(2) as both:
        added = list(both.map(lambda file: dropped.add(project, [file]), files))
    assert [one.pictures for one in added] == [1, 1]
    assert set(held(project)) == {"a.png", "a-2.png"}


def test_captions_of_equal_names_find_the_pictures_they_came_with(project, tmp_path):
    files = []
    for number, folder in enumerate(("x", "y")):  # as a browser hands over a folder with two folders in it
        files += [save(tmp_path / folder / "1.png", (90 * number, 0, 0)), tmp_path / folder / "1.txt"]
        files[-1].write_text(f"from {folder}", "utf-8")
    dropped.add(project, files)
    assert held(project) == {"1.png": "from x", "1-2.png": "from y"}


def test_a_caption_may_come_later_but_replaces_none(project, tmp_path):
    caption = tmp_path / "a.txt"
    dropped.add(project, [save(tmp_path / "a.png")])
    caption.write_text("first", "utf-8")
    assert dropped.add(project, [caption]).captions == 1
    caption.write_text("second", "utf-8")
    assert "has a caption already" in dropped.add(project, [caption]).skipped[0]
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
    added = dropped.add(project, [archive])
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
    monkeypatch.setattr(dropped, "ZIP_BYTES", 1_000_000)
    added = dropped.add(project, [broken, bomb])
    assert "broken.zip is damaged" in added.skipped[0] and "bomb.zip holds more" in added.skipped[1]
    assert held(project) == {}


def test_a_zip_file_that_lies_about_its_sizes_leaves_nothing_behind(project, tmp_path):
    archive = tmp_path / "liar.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a.png", bytes(5_000_000))
    data = archive.read_bytes()
    archive.write_bytes(data.replace((5_000_000).to_bytes(4, "little"), (50).to_bytes(4, "little")))
    added = dropped.add(project, [archive])
    assert "a.png cannot be unpacked" in added.skipped[0] and held(project) == {}


@pytest.mark.parametrize("how", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_few_hundred_bytes_that_unpack_as_one_large_block_fill_no_memory(how, project, tmp_path):
    archive, size = tmp_path / "block.zip", 30_000_000
    with zipfile.ZipFile(archive, "w") as file:
        file.write(save(tmp_path / "good.png"), "good.png")
        file.writestr("a.png", bytes(size), how)
        file.writestr("a.txt", "a block", how)
    data = archive.read_bytes()
    archive.write_bytes(data.replace(size.to_bytes(4, "little"), (50).to_bytes(4, "little")))
    came = []
    assert most_bytes(lambda: came.append(dropped.add(project, [archive]))) < size / 2
    ((told,),) = (added.skipped for added in came)
    assert held(project) == {"good.png": None}
    assert "a.png and 1 more in block.zip cannot be unpacked" in told and "Deflate" in told


def test_linked_projects_take_no_files(place, pictures, tmp_path):
    linked = concepts.make(place, "Linked", "object", f' "{pictures}" ')
    assert linked.pictures == str(pictures) and not linked.owns_pictures
    with pytest.raises(UserError, match="are linked from"):
        dropped.add(linked, [save(tmp_path / "a.png")])


def test_a_caption_goes_to_the_first_of_equal_pictures_and_never_into_a_linked_folder(project, tmp_path):
    folder, elsewhere = Path(project.pictures), tmp_path / "elsewhere"
    save(elsewhere / "dog.png", (0, 0, 200))
    for name in ("zz", "aa", "mm"):
        save(folder / f"{name}.png")
    (folder / "linked").symlink_to(elsewhere)
    (tmp_path / "dog.txt").write_text("a dog", "utf-8")
    (tmp_path / "cat.txt").write_text("a cat", "utf-8")
    added = dropped.add(project, [save(tmp_path / "cat.png"), tmp_path / "cat.txt", tmp_path / "dog.txt"])
    assert added.known == 1 and [sentence.partition(":")[0] for sentence in added.skipped] == ["dog.txt"]
    assert (folder / "aa.txt").read_text("utf-8") == "a cat"
    assert [file.name for file in elsewhere.iterdir()] == ["dog.png"]
