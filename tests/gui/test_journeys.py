"""Whole journeys through the window with the real engine and the embedded base, and over a kill of the app itself."""

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import expect
from safetensors.numpy import load_file

from app import jobs, projects, queue, runs
from app.demo import CONCEPTS_BY_NAME
from app.paths import CONCEPTS, ROOT, Home
from tests.gui.own_process import FAKE_ENGINE, window
from trainers.config import DataConfig, SavingConfig, ScheduleConfig, TrainConfig

A_TRAINING = 20 * 60_000  # ms: 500 steps and what comes before and after, on one slow core beside other tests


@pytest.fixture(autouse=True)
def nothing_trains_on(home: Path) -> Iterator[None]:
    """Whatever a failed test leaves behind ends with it."""
    yield
    for run in runs.list_runs(Home(home)):
        jobs.end(run)


@pytest.mark.parametrize("steps", [40, pytest.param(500, marks=pytest.mark.slow)])
def test_first_start_to_a_verified_adapter_file_with_one_click_on_train(served, open_page, monkeypatch, steps):
    if steps < 500:  # the sample's own number
        monkeypatch.setitem(CONCEPTS_BY_NAME, "style", replace(CONCEPTS_BY_NAME["style"], steps=steps))
    page = open_page(served.address)
    expect(page.get_by_label("Caption of banana.png")).to_be_visible()  # the sample concept is there
    page.get_by_role("tab", name="Train", exact=True).click()
    page.get_by_role("button", name="Train", exact=True).click()
    expect(page).to_have_url(re.compile("show=monitor"))
    grid = page.get_by_role("region", name="Samples by prompt and step")
    expect(grid.get_by_role("columnheader", name="Base")).to_be_visible(timeout=A_TRAINING)
    expect(page.locator(".dr-word")).to_have_text("Training")  # pictures are there while it trains
    expect(page.get_by_text("Saved as fluent-style.safetensors")).to_be_visible(timeout=A_TRAINING)
    expect(page.locator(".dr-word")).to_have_text("Finished")
    expect(grid.get_by_role("columnheader", name=f"Step {steps}", exact=True)).to_be_visible()

    page.get_by_role("button", name="Compare checkpoints").click()
    page.get_by_label("Prompts to compare").fill("fluent style cat")
    page.get_by_label("Strengths to compare").fill("1")
    page.get_by_role("button", name="Compare", exact=True).click()
    page.get_by_role("button", name=re.compile(f"^Pick step {steps}\\b")).click(timeout=A_TRAINING)
    page.get_by_label("Name of the adapter file").fill("my fluent style")
    page.get_by_role("button", name="Save adapter file").click()
    expect(page.get_by_text("read back as trained")).to_be_visible(timeout=A_TRAINING)
    (run,) = runs.list_runs(served.context.home)
    assert len(load_file(run.folder / "output" / "my fluent style.safetensors")) > 100


def test_the_window_and_the_command_line_train_the_same(served, open_page, home, tmp_path_factory):
    folder = tmp_path_factory.mktemp("twelve ‘pictures’ 漢字")
    for i, picture in enumerate(sorted((CONCEPTS / "mascot").glob("*.png"))):
        Image.open(picture).resize((96 + 8 * i, 96)).save(folder / f"{i} <b>ä.png")
    page = open_page(served.address)
    page.get_by_role("button", name="New project").first.click()
    page.get_by_label("Name of the new project").fill("Zibbo")
    page.locator(".dr-new").get_by_label("Character").check()
    page.locator(".dr-new input[type=file]").set_input_files(sorted(folder.iterdir()))
    page.get_by_role("button", name="Create project").click()
    expect(page.get_by_text("12 pictures added")).to_be_visible()
    caption = page.get_by_label(re.compile("^Caption of 0 "))
    caption.fill("zibbo waving <script>alert(1)</script>")
    caption.press("Tab")
    expect(page.get_by_text("Last change: the caption of 0")).to_be_visible()
    page.get_by_role("button", name="Continue to Train").click()
    page.get_by_role("tabpanel", name="Train").get_by_role("radio", name=re.compile("^Character")).click()
    for label, value in (("Steps", "6"), ("Rank", "4"), ("Class pictures", "0"), ("Output preservation", "0")):
        page.get_by_role("button", name="All settings").click() if label == "Class pictures" else None
        page.get_by_label(label, exact=True).fill(value)
        page.get_by_label(label, exact=True).press("Tab")
        expect(page.get_by_role("button", name=f"{label}: back")).to_be_visible()
    page.get_by_role("button", name="Train", exact=True).click()
    expect(page.locator(".dr-word")).to_have_text("Finished", timeout=A_TRAINING)
    (run,) = runs.list_runs(Home(home))
    (project,) = [one for one in projects.list_projects(Home(home)) if one.name == "Zibbo"]

    settings = ["schedule.steps=6", "adapter.rank=4", "data.class_pictures=0", "loss.preservation=0"]
    changes = [part for setting in settings for part in ("--set", setting)]
    trigger = ["--trigger", project.trigger] if project.trigger else []
    new = ["new", "Zibbo", "--pictures", project.pictures, "--kind", "character", *trigger, *changes]
    made = Path(darkroom(*new).strip())
    assert (made / "config.toml").read_bytes() == run.config.read_bytes()
    darkroom("train", str(made))
    ours, theirs = (load_file(one / "output" / "zibbo.safetensors") for one in (run.folder, made))
    assert ours.keys() == theirs.keys() and all((ours[key] == theirs[key]).all() for key in ours)


def test_a_killed_app_comes_back_to_its_run_and_the_queue_goes_on(home, open_page, monkeypatch):
    monkeypatch.setattr(jobs, "ENGINE", (sys.executable, str(FAKE_ENGINE), "wait"))
    made = three_runs(Home(home))
    with window(home, "wait") as (address, app):
        page = open_page(f"{address}?show=library")
        for run in made:
            queue.Queue(Home(home)).add(run)
        waiting = page.get_by_role("list", name="Waiting runs")
        expect(waiting.get_by_role("listitem")).to_have_count(2)
        page.get_by_role("button", name=re.compile("^Train third next")).click()
        expect(waiting.get_by_role("listitem").first).to_contain_text("third")
        page.context.close()
        app.kill()
        app.wait()
    assert runs.is_alive(made[0])  # a run goes on without the window
    with window(home, "wait") as (address, _):
        page, other = open_page(f"{address}?show=monitor&run={made[0].key}"), open_page(f"{address}?show=library")
        expect(page.locator(".dr-line")).to_contain_text("Step 1 of 10")
        expect(other.get_by_role("list", name="Waiting runs").get_by_role("listitem")).to_have_count(2)
        page.get_by_role("button", name="Stop and keep").click()
        expect(page.locator(".dr-word")).to_have_text("Stopped and kept")
        expect(other.get_by_role("list", name="Waiting runs").get_by_role("listitem")).to_have_count(1)
        third = open_page(f"{address}?show=monitor")  # another tab, of whatever runs now
        expect(third.get_by_role("tabpanel", name="Monitor").locator(".dr-head")).to_contain_text("third")
        third.get_by_role("button", name="Stop and keep").click()
        expect(third.locator(".dr-word")).to_have_text("Stopped and kept")
        expect(other.get_by_text("second").first).to_be_visible()
        for one in (page, other, third):
            one.context.close()
    assert [runs.status(run).word for run in (made[0], made[2])] == ["stopped", "stopped"]


def darkroom(*arguments: str) -> str:
    done = subprocess.run([sys.executable, "-m", "app.cli", *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def three_runs(home: Home) -> list[runs.Run]:
    pictures = home.root / "pictures"
    pictures.mkdir()
    Image.new("RGB", (8, 8)).save(pictures / "a.png")
    project = projects.create(home, "Cat", pictures, "object")
    data, steps = DataConfig(folders=(str(pictures),)), ScheduleConfig(steps=10)
    return [
        runs.create(project, TrainConfig(data=data, schedule=steps, saving=SavingConfig(name=name)))
        for name in ("first", "second", "third")
    ]
