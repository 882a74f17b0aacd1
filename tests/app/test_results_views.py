"""The words and tables of the Results page."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from app.comparisons import Progress
from app.drift import Drift
from app.gui import results_file_views as file_views
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


def test_an_enlarged_picture_stands_beside_others_of_its_prompt_and_seed_at_first_the_base(made):
    made.folder.mkdir()
    for cell in made.cells:
        Image.new("RGB", (2, 2)).save(made.folder / cell.file)
    base, first, *_ = rows(views.grid(made))
    groups = [set(re.findall(r'data-group="([^"]*)"', row)) for row in rows(views.grid(made))]
    assert groups[0] == groups[1] == groups[2] != groups[3] == groups[4]
    assert "data-base" in base and "data-base" not in first
    assert 'data-label="Step 10, strength 0.6"' in first and 'data-prompt="zib (seed 1)"' in first


def test_a_later_checkpoint_that_drifts_is_a_hint_above_the_grid(made):
    said = views.drift(Drift(10, 0.1412, 2000, 0.153), made.steps)
    assert "Validation loss is lowest at step 10 (0.1412); at step 2,000 it is 0.153." in said
    assert "pictures decide" in said and "not in this comparison" not in said
    assert "Step 10 is not in this comparison." in views.drift(Drift(10, 0.1412, 2000, 0.153), (2000,))
    html = views.grid(made, remark=said)
    assert html.index("lowest at step 10") < html.index("<table>") and "lowest" not in views.grid(made)


def test_a_training_beside_the_comparison_is_told_and_its_name_is_text():
    html = views.sharing(NASTY)
    assert "is training on the same device" in html and "takes memory" in html and "<script" not in html


def test_all_prompts_are_shown_side_by_side(made):
    assert rows(views.grid(made, views.ALL))[1].count("<td") == 4
    assert rows(views.grid(made, 1))[1].count("<td") == 2


def test_every_prompt_is_shown_at_first_where_there_is_room(made):
    assert views.first_prompt(made) == views.ALL
    assert views.first_prompt(replace(made, strengths=(0.4, 0.6, 0.8, 1.0))) == 0
    assert views.first_prompt(replace(made, prompts=("zib",))) == 0


def test_prompts_and_names_are_shown_as_text(made):
    html = views.grid(made, views.ALL) + views.no_checkpoints(NASTY)
    html += file_views.saved(Pick(1, 1.0, NASTY, adapter=str(Path(__file__)), verified=NASTY), NASTY)
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
    html = file_views.saved(found, "zib")
    for words in (f"Saved as {found.adapter}", "all 8 layers", 'data-copy="zib"', 'data-copy="0.8"', "Open folder"):
        assert words in html
    assert "Copy trigger" not in file_views.saved(found, "")
    assert file_views.saved(replace(found, adapter="/gone"), "zib") == file_views.sending(None, {}) == ""


def test_programs_that_were_found_are_sent_to_and_others_are_asked_for(found):
    html = file_views.sending(found, {"ComfyUI": Path("/ui/models/loras")})
    assert re.search(r'data-act="send"[^>]*>Send to ComfyUI', html)
    assert re.search(r'data-act="ask"[^>]*>Send to Forge', html)
    assert 'aria-label="LoRA folder of Forge"' in file_views.sending(found, {}, "Forge")


def test_a_taken_name_offers_another(found):
    html = file_views.sending(found, {"ComfyUI": Path("/ui")}, "ComfyUI", "taken", "zib-2")
    assert "Send as zib-2" in html and "LoRA folder of" not in html


def test_a_file_that_is_not_used_whole_is_sent_with_a_warning(found):
    files = [Path("/ui/zib.safetensors"), Path("/ui/embeddings/zib.safetensors")]
    assert "A1111 will not load it: no class" in file_views.sent("A1111", files, found)
    said = file_views.sent("ComfyUI", files, found)
    assert "will not" not in said and "embedding:zib" in said
