"""The Train page in the browser: the sample concept becomes a run, settings are found by any name, drafts stay."""

import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from app import base_models, drafts, presets, projects, runs
from app.queue import Queue
from app.worker import Worker
from trainers import config_io
from trainers.config_problems import SETTINGS
from trainers.errors import UserError

ANSWER = {
    "device": "cpu, fp32",
    "pictures": {"usable": 40, "trained": 36, "held_out": 4},
    "remarks": [],
    "problems": [],
    "views_per_picture": 55.6,
    "verdict": "It fits: about 0.5 of 12.0 GB. 500 steps take about 3 minutes (three steps were timed just now).",
}


@pytest.fixture(autouse=True)
def added(monkeypatch) -> list[runs.Run]:
    """Runs that were put into the queue; nothing is trained. Estimates are made up, and refused at rank 13."""
    found: list[runs.Run] = []

    def ask(self, name, report=None, *, config):
        assert name == "check"
        if config["adapter"]["rank"] == 13:
            raise UserError("The pictures are gone.", "Look for them.")
        return ANSWER

    monkeypatch.setattr(Queue, "add", lambda self, run: found.append(run))
    monkeypatch.setattr(Worker, "ask", ask)
    monkeypatch.setattr(base_models, "_places", lambda: [])
    return found


@pytest.fixture
def pictures(tmp_path) -> Path:
    folder = tmp_path / "my ‘pictures’ 漢字"
    folder.mkdir()
    for i in range(3):
        Image.new("RGB", (64, 64), (80 * i, 0, 0)).save(folder / f"{i}.png")
    return folder


def test_first_start_trains_the_sample_concept_with_two_clicks_and_a_double_click_makes_one_run(
    served, open_page, added
):
    page = open_page(f"{served.address}?show=train")
    page.get_by_role("button", name="Try the sample concept").click()
    expect(page.get_by_text("It fits: about 0.5 of 12.0 GB.")).to_be_visible()
    expect(page.get_by_role("radio", name=re.compile("^Style"))).to_have_attribute("aria-checked", "true")
    page.get_by_role("button", name="Train", exact=True).dblclick()
    expect(page).to_have_url(re.compile("show=monitor.*run=fluent-style%2F"))
    page.get_by_role("tab", name="Train", exact=True).click()
    expect(page.get_by_role("button", name="Train", exact=True)).to_be_visible()
    assert len(added) == len(runs.list_runs(served.context.home)) == 1
    config = config_io.load(added[0].config)
    assert config.schedule.steps == 500 and config.data.trigger == "fluent"


def test_settings_are_found_by_any_name_marked_when_changed_and_reach_the_run(served, open_page, pictures, added):
    home = served.context.home
    projects.create(home, "Cat", pictures, "object", "zibbo")
    page = open_page(f"{served.address}?show=train&project=cat")
    expect(page.get_by_label("Noise offset")).to_have_count(0)
    page.get_by_role("button", name="All settings").click()
    find = page.get_by_role("searchbox", name="Find a setting")
    for words, label, value in [
        ("network_dim", "Rank", "12"),
        ("optimizer.rate", "Learning rate", "3e-4"),
        ("noise offset", "Noise offset", "0.05"),
        ("Gradient", "Gradient checkpointing", "all"),
        ("loss_type", "Loss", "huber"),
        ("sample_prompts", "Preview prompts", "a zibbo\n<b>漢字</b>"),
        ("block_rates", "Rates by block", '{ "up_blocks.1" = 0.5 }'),
    ]:
        find.fill(words)
        control = page.get_by_label(label, exact=True)
        expect(control).to_be_visible()
        expect(page.get_by_label("Comment", exact=True)).to_be_hidden()
        expect(page.get_by_text("No setting goes by these words.")).to_be_hidden()
        if label in ("Loss", "Gradient checkpointing"):
            control.select_option(value)
        else:
            control.fill(value)
            control.press("Tab")
        expect(page.get_by_role("button", name=f"{label}: back to the preset's value")).to_be_visible()
    find.fill("")
    page.get_by_label("Rank", exact=True).fill("13")
    page.get_by_label("Rank", exact=True).press("Tab")
    expect(page.get_by_text("No estimate: The pictures are gone.")).to_be_visible()
    page.get_by_label("Only changed").check()
    expect(page.get_by_text(f"7 of {len(SETTINGS)}")).to_be_visible()
    page.get_by_role("button", name="Noise offset: back").click()
    expect(page.get_by_label("Noise offset", exact=True)).to_be_hidden()

    rate = page.get_by_label("Learning rate", exact=True)
    rate.fill("fast")
    rate.press("Tab")
    expect(page.get_by_text("One setting needs another look before training")).to_be_visible()
    expect(rate).to_have_attribute("aria-invalid", "true")
    expect(page.get_by_role("button", name="Train", exact=True)).to_be_disabled()
    rate.fill("3e-4")
    rate.press("Tab")
    page.get_by_role("button", name="Train", exact=True).click()
    expect(page).to_have_url(re.compile("show=monitor"))
    config = config_io.load(added[0].config)
    start = drafts.plan(home, projects.list_projects(home)[0]).start
    assert config_io.difference(config, start) == {
        "adapter.rank": 13,
        "optimizer.rate": 3e-4,
        "memory.checkpointing": "all",
        "loss.type": "huber",
        "preview.prompts": ("a zibbo", "<b>漢字</b>"),
        "optimizer.block_rates": {"up_blocks.1": 0.5},
    }


def test_a_draft_stays_over_a_reload_and_a_wrong_base_and_own_presets_are_told_in_words(served, open_page, pictures):
    home = served.context.home
    projects.create(home, "Cat", pictures, "object")
    page = open_page(f"{served.address}?show=train")
    page.get_by_role("radio", name=re.compile("^Person")).click()
    expect(page.get_by_role("radio", name=re.compile("^Person"))).to_have_attribute("aria-checked", "true")
    page.get_by_label("Rank", exact=True).fill("9")
    page.get_by_label("Rank", exact=True).press("Tab")
    expect(page.get_by_role("button", name="Rank: back")).to_be_visible()
    expect(page.get_by_text("It fits")).to_be_visible()
    page.reload()
    expect(page.get_by_label("Rank", exact=True)).to_have_value("9")

    page.get_by_role("button", name="Save these settings as a preset").click()
    page.get_by_label("Preset name").fill("My <b>cat</b>")
    page.get_by_label("What it is for").fill("For cats.")
    page.get_by_role("button", name="Save preset").click()
    expect(page.get_by_role("radio", name="My <b>cat</b> For cats.")).to_have_attribute("aria-checked", "true")
    expect(page.get_by_role("button", name="Rank: back")).to_have_count(0)
    page.get_by_role("button", name="Remove the preset My").click()
    expect(page.get_by_role("radio", name=re.compile("^My"))).to_have_count(0)
    assert not any(preset.own for preset in presets.all_presets(home).values())

    base = page.get_by_label(re.compile("^Base model"))
    base.fill("/nowhere/model.safetensors")
    base.press("Enter")
    expect(page.get_by_role("alert").filter(has_text="There is no base model at /nowhere")).not_to_have_count(0)
    expect(page.get_by_role("button", name="Train", exact=True)).to_be_disabled()


def test_every_setting_is_found_by_its_name_and_by_its_title(served, open_page, pictures):
    projects.create(served.context.home, "Cat", pictures, "object")
    page = open_page(f"{served.address}?show=train&project=cat")
    page.get_by_role("button", name="All settings").click()
    find = page.get_by_role("searchbox", name="Find a setting")
    for name, setting in SETTINGS.items():
        for words in filter(None, (name, setting.title)):
            find.fill(words)
            expect(page.locator(f'[data-setting="{name}"]').locator("input, select, textarea")).to_be_visible()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_ticked_box_looks_otherwise_than_an_empty_one(served, open_page, theme):
    page = open_page(f"{served.address}?show=train&__theme={theme}")
    page.get_by_role("button", name="Try the sample concept").click()
    expect(page.get_by_text("It fits: about 0.5 of 12.0 GB.")).to_be_visible()
    page.get_by_role("button", name="All settings").click()
    for box in (page.get_by_label("Only changed"), page.locator("#setting-data-flip")):
        box.set_checked(True)
        ticked = coloured(box.screenshot())
        box.set_checked(False)
        assert ticked > 0.4 > coloured(box.screenshot())


def coloured(picture: bytes) -> float:
    """Share of a PNG's pixels that are not grey."""
    pixels = np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"))
    return (np.ptp(pixels, axis=2) > 80).mean()
