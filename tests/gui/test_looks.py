"""Every page, light and dark, wide and narrow: pictures of them, which never need to be scrolled sideways.

The pictures go to the folder that DARKROOM_SHOTS names, to be looked at.
"""

import os
import shutil
from pathlib import Path

import pytest
from playwright.sync_api import expect

from app import concepts, projects, runs
from app.gui.window import PAGES
from tests.gui.conftest import SIZE
from trainers import config_io
from trainers.events import Adjusted, Checkpoint, EventLog, Finished, Phase, Sample, Started, Step, Validation

TABLET = {"width": 820, "height": 1180}


def finished_run(home) -> runs.Run:
    """A run of the sample concept as a training leaves it, its pictures borrowed from the concept."""
    project = concepts.use_sample(home, "mascot")
    config = config_io.parse({"data": {"folders": [project.pictures], "trigger": "zibbo", "kind": "character"}})
    run = runs.create(project, config_io.merge(config, {"saving": {"name": "zibbo"}, "schedule": {"steps": 400}}))
    pictures = sorted(Path(project.pictures).glob("*.png"))
    emit = EventLog(run.events)
    emit(Started(400, 0, "cpu", len(pictures), "zibbo"))
    emit(Phase("Training"))
    emit(Adjusted("The text encoder is not trained", "It has no layer of its own here."))
    for step in range(0, 401, 10):
        if step:
            emit(Step(step, 400, 0.2 + 0.3 / (1 + step / 40) + 0.02 * (step % 7), 1e-3, 0.4, 0.8))
        if step % 100 == 0:
            emit(Validation(step, 0.25 + 0.2 / (1 + step / 60), 0.3))
            for row, prompt in enumerate(("zibbo waving", "zibbo riding a bicycle", "a robot on a beach")):
                name = f"samples/step_{step:06d}_{row}.png"
                (run.folder / "samples").mkdir(exist_ok=True)
                shutil.copy(pictures[(row * 5 + step // 100) % len(pictures)], run.folder / name)
                emit(Sample(step, prompt, name))
            (run.folder / "checkpoints" / f"step_{step:06d}").mkdir(parents=True)
            emit(Checkpoint(step, f"checkpoints/step_{step:06d}"))
    (run.folder / "output").mkdir()
    (run.folder / "output" / "zibbo.safetensors").write_bytes(b"an adapter")
    emit(Finished(400, "output/zibbo.safetensors", 160.0))
    return run


@pytest.mark.parametrize(("theme", "size"), [("light", SIZE), ("dark", SIZE), ("light", TABLET)], ids=str)
def test_every_page_fits_its_width(served, open_page, tmp_path, theme, size, monkeypatch):
    monkeypatch.setattr(served.context.worker, "ask", lambda *_, **__: ESTIMATE)
    run = finished_run(served.context.home)
    assert projects.list_projects(served.context.home)
    folder = Path(os.environ.get("DARKROOM_SHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    page = open_page(f"{served.address}?project={run.key.partition('/')[0]}&run={run.key}", theme)
    page.set_viewport_size(size)
    for name, (title, _) in PAGES.items():
        page.get_by_role("tab", name=title, exact=True).click()
        expect(page.get_by_role("tabpanel", name=title).get_by_text(SIGNS[name]).first).to_be_visible()
        page.wait_for_function("[...document.images].every((one) => one.complete || one.loading === 'lazy')")
        page.screenshot(path=folder / f"{name}_{theme}_{size['width']}.png")
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"], name


SIGNS = {  # what stands on a page once it is filled
    "concept": "12 pictures",
    "train": "It fits",
    "monitor": "Saved as zibbo.safetensors",
    "results": "That makes",
    "library": "1 run",
}
ESTIMATE = {
    "device": "cpu, fp32",
    "pictures": {"usable": 12, "trained": 10, "held_out": 2},
    "remarks": [],
    "problems": [],
    "views_per_picture": 160.0,
    "verdict": "It fits: about 0.6 of 12.0 GB. 400 steps take about 3 minutes (three steps were timed just now).",
}
