"""The words and tables of the Results page."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from app.comparisons import Progress
from app.gui import results_views as views
from app.picks import Pick
from trainers import config_io
from trainers.comparison import Comparison, cells_of

CONFIG = config_io.parse({"data": {"trigger": "zib", "kind": "object"}})
NASTY = '<script>alert("1")</script> zib'


@pytest.fixture
def made(tmp_path: Path) -> Comparison:
    wished = ((10, 2000), ("zib", NASTY), (0.6, 1.0), (1,))
    return Comparison(tmp_path / "2026-01-31_10-20-30", *wished, cells_of(CONFIG, *wished))


def rows(html: str) -> list[str]:
    return re.findall(r"<tr class.*?</tr>", html)


def test_the_base_comes_first_and_the_rows_without_trigger_last(made):
    labels = [re.search(r"<span>(.*?)</span>", row)[1] for row in rows(views.grid(made))]
    assert labels == ["Base model", "Step 10", "Step 2,000", "Base model, no trigger", "Step 2,000, no trigger"]


def test_the_bases_picture_stands_for_all_strengths(made):
    base, step = rows(views.grid(made))[:2]
    assert 'colspan="2"' in base and base.count("<td") == 1
    assert "colspan" not in step and step.count("<td") == 2


def test_a_step_can_be_picked_at_each_strength(made):
    base, first, last, *plain = rows(views.grid(made, picked=Pick(10, 0.6, "zib")))
    assert "Picked, at 0.6" in first and "chosen" in first
    assert last.count("data-act=") == 2 and 'aria-label="Pick step 2000 at strength 0.6"' in last
    assert not any("data-act" in row for row in (base, *plain))


def test_drawn_pictures_can_be_enlarged_and_the_others_say_so(made):
    made.folder.mkdir()
    Image.new("RGB", (2, 2)).save(made.folder / made.cells[0].file)
    html = views.grid(made, drawing=True)
    assert html.count("data-zoom") == 1 and "Enlarge: Base model, seed 1: zib" in html
    assert "to be drawn" in html and "not drawn" not in html
    assert "not drawn" in views.grid(made)


def test_all_prompts_are_shown_side_by_side(made):
    assert rows(views.grid(made, views.ALL))[1].count("<td") == 4
    assert rows(views.grid(made, 1))[1].count("<td") == 2


def test_every_prompt_is_shown_at_first_where_there_is_room(made):
    assert views.first_prompt(made) == views.ALL
    assert views.first_prompt(replace(made, strengths=(0.4, 0.6, 0.8, 1.0))) == 0
    assert views.first_prompt(replace(made, prompts=("zib",))) == 0


def test_prompts_and_names_are_shown_as_text(made):
    html = views.grid(made, views.ALL) + views.no_checkpoints(NASTY)
    html += views.saved(Pick(1, 1.0, NASTY, adapter=str(Path(__file__)), verified=NASTY), NASTY)
    html += views.progress(Progress("failed", 1, 2, message=NASTY, hint=NASTY))
    assert "<script" not in html and "&lt;script&gt;" in html


def test_progress_is_told_in_pictures_and_time():
    said = views.progress(Progress("running", 12, 33, "Drawing", 90.0))
    assert "Drawing: 12 of 33 pictures, about" in said and 'aria-valuenow="12"' in said
    assert "Stopped at 12 of 33" in views.progress(Progress("stopped", 12, 33))
    assert "The base is gone" in views.progress(Progress("failed", 0, 3, message="The base is gone."))
    assert views.progress(Progress("done", 3, 3)) == views.progress(None) == ""


@pytest.fixture
def found(tmp_path: Path) -> Pick:
    adapter = tmp_path / "zib.safetensors"
    adapter.touch()
    verdicts = {"A1111": "does not load: no class", "ComfyUI": "loads"}
    return Pick(500, 0.8, "zib", "kohya", str(adapter), (str(adapter),), "all 8 layers", "ab" * 32, (), verdicts)


def test_a_saved_file_says_where_it_is_and_what_to_write(found):
    html = views.saved(found, "zib")
    for words in (f"Saved as {found.adapter}", "all 8 layers", 'data-copy="zib"', 'data-copy="0.8"', "Open folder"):
        assert words in html
    assert "Copy trigger" not in views.saved(found, "")
    assert views.saved(replace(found, adapter="/gone"), "zib") == views.sending(None, {}) == ""


def test_programs_that_were_found_are_sent_to_and_others_are_asked_for(found):
    html = views.sending(found, {"ComfyUI": Path("/ui/models/loras")})
    assert re.search(r'data-act="send"[^>]*>Send to ComfyUI', html)
    assert re.search(r'data-act="ask"[^>]*>Send to Forge', html)
    assert 'aria-label="LoRA folder of Forge"' in views.sending(found, {}, "Forge")


def test_a_taken_name_offers_another(found):
    html = views.sending(found, {"ComfyUI": Path("/ui")}, "ComfyUI", "taken", "zib-2")
    assert "Send as zib-2" in html and "LoRA folder of" not in html


def test_a_file_that_is_not_used_whole_is_sent_with_a_warning(found):
    files = [Path("/ui/zib.safetensors"), Path("/ui/embeddings/zib.safetensors")]
    assert "will not use it whole: does not load: no class" in views.sent("A1111", files, found)
    said = views.sent("ComfyUI", files, found)
    assert "will not" not in said and "embedding:zib" in said
