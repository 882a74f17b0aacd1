"""What the trainer will see of each picture, what is remarked, and how it is shown."""

import os
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from app import picture_list, projects, trigger_words
from app.framing import Framing, crop_of
from app.gui import concept_views as views
from app.paths import CONCEPTS
from app.picture_facts import Facts, Measured, look_at, twins
from app.picture_folder import read_folder
from trainers.config import DataConfig
from trainers.data.examples import scan
from trainers.errors import UserError

AT_512 = Framing(512, 64, "Stable Diffusion 1.x", embedded=False)
SCRIPT = "<img src=x onerror=alert(1)>"


def noise(size: tuple[int, int], seed: int) -> Image.Image:
    """A picture with details at every scale, as photographs have them."""
    rng = np.random.default_rng(seed)
    layers = [Image.fromarray(rng.integers(0, 255, (n, n, 3), np.uint8)).resize(size) for n in (3, 12, 48, 200)]
    picture = layers[0]
    for layer in layers[1:]:
        picture = Image.blend(picture, layer, 0.35)
    return picture


@pytest.fixture
def project(place, tmp_path):
    folder = tmp_path / "pictures"
    (folder / "sub").mkdir(parents=True)
    noise((900, 600), 1).save(folder / "good.jpg")
    noise((901, 601), 1).save(folder / "twin.png")
    noise((800, 800), 2).filter(ImageFilter.GaussianBlur(14)).save(folder / "blurred.png")
    noise((100, 80), 3).save(folder / "small.png")
    noise((600, 900), 4).save(
        folder / "sub" / "turned.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    )
    (folder / f"{SCRIPT.replace('/', '')}.png").write_bytes(b"no picture")
    (folder / "good.txt").write_text("a zorb in the garden", "utf-8")
    (folder / "twin.txt").write_text(f"a cat {SCRIPT}", "utf-8")
    (folder / "blurred.txt").write_text("zorb " + "very " * 100, "utf-8")
    return projects.create(place, "x", folder, "object", "zorb")


@pytest.fixture
def seen(place, project):
    measured = Measured(place)
    picture_list.overview(project, measured, AT_512)
    measured.wait()
    return picture_list.overview(project, measured, AT_512)


def kinds(seen: picture_list.Overview) -> dict[str, list[str]]:
    return {picture.name: [remark.kind for remark in picture.warnings] for picture in seen.pictures}


def test_each_problem_is_found_on_its_picture(seen):
    assert kinds(seen) == {
        "<img src=x onerror=alert(1)>.png": ["unreadable"],
        "blurred.png": ["blurred", "long"],
        "good.jpg": [],
        "small.png": ["small", "empty"],
        "sub/turned.jpg": ["empty"],
        "twin.png": ["twin", "trigger"],
    }
    assert seen.warnings == 8 and seen.measured == 6


def test_sizes_are_upright_and_crops_are_the_trainers(seen, project):
    turned = next(picture for picture in seen.pictures if picture.name == "sub/turned.jpg")
    assert turned.facts.size == (900, 600)
    examples = {example.path: example for example in scan(DataConfig(folders=(project.pictures,))).examples}
    assert {p.path: p.facts.content for p in seen.trained} == {p: e.content_hash for p, e in examples.items()}
    assert all(picture.facts.size == examples[picture.path].size for picture in seen.trained)
    assert (turned.crop.bucket.width, turned.crop.bucket.height) == (640, 384)


@pytest.mark.parametrize(("size", "kinds"), [((1600, 1600), []), ((3000, 1600), []), ((12000, 900), ["cut"])])
def test_a_picture_of_which_most_is_cut_away_is_warned_of(size, kinds):
    facts = Facts(size=size, content="", sharpness=1000.0)
    assert [remark.kind for remark in picture_list._of_facts(facts, crop_of(size, AT_512), None)] == kinds


def test_a_crop_covers_its_share_of_the_picture():
    crop = crop_of((1000, 300), AT_512)
    left, top, width, height = views.crop_shares(crop)
    assert (top, height) == (0, 1) and left == pytest.approx((1 - width) / 2, abs=0.01) and 0 < width < 1
    assert 1 - width * height == pytest.approx(crop.lost)


def test_left_out_pictures_have_no_warnings_and_no_twins(place, project, seen):
    changed = projects.update(project, left_out=("good.jpg", "small.png"))
    measured = Measured(place)  # facts come from the disk
    again = picture_list.overview(changed, measured, AT_512)
    assert again.measured == 6 and again.left_out == 2
    assert kinds(again)["twin.png"] == ["trigger"] and kinds(again)["small.png"] == []
    assert [p.name for p in picture_list.chosen(again.pictures, "left out", "")] == ["good.jpg", "small.png"]
    assert [p.name for p in picture_list.chosen(again.pictures, "warnings", "CAT")] == ["twin.png"]


def test_captions_are_read_again_when_they_change(place, project, seen):
    caption = Path(project.pictures) / "twin.txt"
    caption.write_text("a zorb cat", "utf-8")
    again = picture_list.overview(project, Measured(place), AT_512)
    assert kinds(again)["twin.png"] == ["twin"]


def test_a_missing_folder_is_a_sentence(place, project):
    Path(project.pictures).rename(Path(project.pictures).with_name("moved"))
    with pytest.raises(UserError, match="There is no folder"):
        picture_list.overview(project, Measured(place), AT_512)


@pytest.mark.parametrize("name", ["../settings.toml", "/etc/passwd", "none.png", "sub/../good.jpg"])
def test_no_name_leads_out_of_the_project(project, name):
    with pytest.raises(UserError, match="no picture"):
        picture_list.path_of(project, name)


def test_what_a_page_shows_is_measured_first(place, project):
    order, begun, go = [], threading.Event(), threading.Event()

    def measure(path: Path) -> Facts:
        begun.set()
        go.wait(10)
        order.append(path.name)
        return Facts((8, 8))

    measured = Measured(place, measure)
    picture_list.overview(project, measured, AT_512)
    assert begun.wait(10)
    measured.hurry([Path(project.pictures) / "twin.png"])
    go.set()
    measured.wait()
    assert order[1] == "twin.png" and len(order) == 6


def test_damaged_cache_is_measured_anew(place, project, seen):
    for file in (place.cache / "pictures").iterdir():
        file.write_text("[[", "utf-8")
    measured = Measured(place)
    assert picture_list.overview(project, measured, AT_512).measured == 0
    measured.wait()
    assert picture_list.overview(project, measured, AT_512).measured == 6


def test_twins_name_the_first_that_looks_alike():
    assert twins([0, 2**64 - 1, 0b1111, 0b11111, 0]) == {2: 0, 3: 2, 4: 0}
    assert twins([]) == {}


def test_two_thousand_pictures_turn_a_page_quickly(place, tmp_path):
    folder = tmp_path / "many"
    folder.mkdir()
    noise((32, 32), 1).save(tmp_path / "seed.png")
    for number in range(2000):
        (folder / f"{number}.png").hardlink_to(tmp_path / "seed.png")
        (folder / f"{number}.txt").write_text(f"a zorb number {number}", "utf-8")
    project = projects.create(place, "many", folder, "object", "zorb")
    measured = Measured(place, lambda path: Facts((600, 400), "x", hash(path.name) % 2**63))
    picture_list.overview(project, measured, AT_512)
    measured.wait()
    begun = time.process_time()
    pictures, number, pages = picture_list.page_of(picture_list.overview(project, measured, AT_512).pictures, 3)
    views.grid(pictures, picture_list.overview(project, measured, AT_512), project)
    assert time.process_time() - begun < 1  # two looks; about 0.1 s on an idle machine
    assert (len(pictures), number, pages) == (24, 3, 84)


def test_folder_is_read_as_the_trainer_does(project):
    files = read_folder(project.pictures)
    assert (
        len(files.pictures) == 6 and files.caption(str(Path(project.pictures) / "good.jpg")) == "a zorb in the garden"
    )


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are Unix's")
def test_pipes_are_neither_pictures_nor_captions_and_links_to_files_are_both(tmp_path, project):
    folder = Path(project.pictures)
    os.mkfifo(folder / "small.txt")
    (folder / "small.caption").write_text("a zorb", "utf-8")
    (folder / "blurred.TXT").symlink_to(folder / "small.txt")
    os.mkfifo(folder / "pipe.png")
    (tmp_path / "elsewhere.txt").write_text("told elsewhere", "utf-8")
    (folder / "linked.png").symlink_to(folder / "small.png")
    (folder / "linked.txt").symlink_to(tmp_path / "elsewhere.txt")
    files = read_folder(project.pictures)
    pipes = {str(folder / name) for name in ("small.txt", "blurred.TXT", "pipe.png")}
    assert not pipes & {*files.pictures, *files.captions} and pipes <= {*files.outline}
    assert files.caption(str(folder / "small.png")) == "a zorb"
    assert (
        files.caption(str(folder / "linked.png")) == "told elsewhere" and str(folder / "linked.png") in files.pictures
    )


def test_pictures_of_bundled_samples_are_not_called_blurred_or_alike():
    for folder in ("fluent", "mascot"):
        facts = [look_at(path) for path in sorted((CONCEPTS / folder).glob("*.png"))]
        assert min(fact.sharpness for fact in facts) > 0.02
        assert twins([fact.likeness for fact in facts]) == {}


def test_names_and_captions_are_shown_as_text(seen, project):
    html = views.grid(seen.pictures, seen, project)
    assert "<img src=x" not in html and "&lt;img src=x onerror=alert(1)&gt;" in html
    assert 'value="a cat &lt;img' in html


def test_summary_counts(seen):
    assert "6 pictures, 8 warnings" in views.summary(seen)
    assert "2,000 pictures" == views.counted(2000, "picture") and views.counted(1, "picture") == "1 picture"


def test_what_was_not_looked_at_is_not_said_to_be_without_warnings(seen):
    unseen = [picture._replace(facts=None, warnings=[]) for picture in seen.pictures]
    warned = next(picture for picture in seen.pictures if len(picture.warnings) == 1)
    assert "6 pictures<" in views.summary(replace(seen, pictures=unseen))
    assert "6 pictures, 1 warning so far<" in views.summary(replace(seen, pictures=[warned, *unseen[1:]]))
    plain = [picture._replace(warnings=[]) for picture in seen.pictures]
    assert "6 pictures, no warnings<" in views.summary(replace(seen, pictures=plain))


def test_facts_in_words():
    crop = crop_of((1000, 300), AT_512)
    assert (
        views.facts_line(Facts((1000, 300)), crop).startswith("1,000 x 300, trained at 832 x 256, 3 % cut away") or crop
    )
    assert views.facts_line(None, None) == "Looking at it ..."


@pytest.mark.parametrize("word", ["dog", "woman", "my dog", "a,b", "(zorb)", "x" * 60])
def test_poor_trigger_words_are_told(word):
    assert trigger_words.complaint(word)


@pytest.mark.parametrize("name", ["My cat", "Ünïcode ‘quotes’ 漢字 🎉", "漢字", "strength", "", "Oo"])
def test_suggestions_are_short_rare_words(name):
    first = trigger_words.suggest(name)
    second = trigger_words.suggest(name, first)
    for word in (first, second):
        assert word.isascii() and word.isalpha() and 2 <= trigger_words.count(word) <= 3
        assert trigger_words.complaint(word) == ""
    assert first != second


def test_captions_are_too_long_by_the_bases_own_tokenizer():
    assert not trigger_words.is_too_long("word " * 75) and trigger_words.is_too_long("word " * 76)
    assert trigger_words.is_too_long("cat " * 31, embedded=True) and not trigger_words.is_too_long("cat " * 30, True)
