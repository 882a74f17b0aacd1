"""One app process that trains many short runs, and is looked at all the while, needs no more at the end.

`--rounds` runs with the fake engine, and a tenth of them with the real one on a tiny base:

    pytest tests/gui/test_soak.py -m slow --rounds 500 -rP
"""

import re
import statistics
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from pathlib import Path

import psutil
import pytest
from playwright.sync_api import Page, expect

from app import jobs, projects, runs
from app.paths import Home
from app.queue import Queue
from tests.gui.own_process import helpers, window
from tests.nine_pictures import nine_pictures
from tests.tiny import tiny_pipeline_folder
from trainers import config_io

LOOKS = 20  # at what the process needs, evenly spread over the runs
PER_100 = 3.0  # MB that 100 runs may leave behind: the app remembers what it shows of each
NOISE = 4.0  # MB by which the same process differs from one look to the next
A_RUN = 120_000  # ms, the real engine on one slow core
SETTINGS = {
    "adapter": {"rank": 2, "alpha": 1.0},
    "preview": {"sampling_steps": 1, "prompts": ["zib", "a cat"]},
}


@dataclass(frozen=True)
class Needs:
    """What a process holds: after so many runs, in MB, and as counts."""

    runs: int
    memory: float
    handles: int
    threads: int
    children: int

    def __str__(self) -> str:
        return "{:5} runs: {:7.1f} MB, {} handles, {} threads, {} children".format(*astuple(self))


@pytest.fixture(autouse=True)
def nothing_trains_on(home: Path) -> Iterator[None]:
    yield
    for run in runs.list_runs(Home(home)):
        jobs.end(run)


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "steps", "share"), [("short", 40, 1.0), ("", 2, 0.1)], ids=["fake", "real"])
def test_a_long_life_of_the_app_needs_no_more_and_more(home, open_page, request, mode, steps, share):
    whole = max(4, round(request.config.getoption("--rounds") * share))
    at_once = -(-whole // LOOKS)
    needs = []
    with window(home, mode) as (address, app):
        page = open_page(f"{address}?show=monitor")
        for done in range(0, whole, at_once):
            several = more(Home(home), steps, done, min(at_once, whole - done))
            train(Home(home), several)
            name = several[-1].folder.name[-4:]
            expect(page.locator(".dr-head.finished")).to_contain_text(name, timeout=len(several) * A_RUN)
            look_around(page)
            needs.append(measured(app, done + len(several)))
            print(needs[-1], flush=True)  # noqa: T201 - the figures, with -rP
        page.context.close()
    assert [runs.status(run).word for run in runs.list_runs(Home(home))] == ["finished"] * whole
    before, after = needs[len(needs) // 4 : len(needs) // 2], needs[3 * len(needs) // 4 :]
    runs_between = after[-1].runs - before[-1].runs
    assert usual(after, "memory") - usual(before, "memory") < NOISE + PER_100 * runs_between / 100
    for name in ("handles", "threads", "children"):  # pools differ by one or two from look to look
        assert most(after, name) <= most(needs[: -len(after)], name)


def more(home: Home, steps: int, done: int, count: int) -> list[runs.Run]:
    """New runs of one project, named by their number."""
    pictures, base = home.root / "pictures", home.root / "base"
    if not pictures.exists():
        pictures.mkdir()
        tiny_pipeline_folder(base)
        projects.create(home, "Soak", nine_pictures(pictures), "object")
    (project,) = [one for one in projects.list_projects(home) if one.name == "Soak"]
    own = {"model": {"base": str(base)}, "data": {"folders": [str(pictures)]}, "schedule": {"steps": steps}}
    saving = [{"name": f"{number:04}", "every": 10} for number in range(done, done + count)]
    return [runs.create(project, config_io.parse({**SETTINGS, **own, "saving": one})) for one in saving]


def train(home: Home, several: list[runs.Run]) -> None:
    """As another program would that adds to the queue: all of them are started by the app."""
    with Queue(home)._locked() as kept:
        kept.waiting.extend(several)


def look_around(page: Page) -> None:
    """Every page, as a person would who comes by."""
    for name in ("Library", "Results", "Train", "Concept", "Monitor"):
        tab = page.get_by_role("tab", name=re.compile(f"^{name}"), exact=True)
        tab.click()
        expect(tab).to_have_attribute("aria-selected", "true")
    expect(page.locator(".dr-word")).to_have_text("Finished")


def measured(app: psutil.Process, done: int) -> Needs:
    """Once the engines that it started have ended and are forgotten."""
    started = set(app.children(recursive=True)) - set(helpers(app))
    assert psutil.wait_procs(started, timeout=60)[1] == []
    handles = app.num_handles() if psutil.WINDOWS else app.num_fds()
    memory = app.memory_info().rss / 2**20
    return Needs(done, memory, handles, app.num_threads(), len(app.children(recursive=True)))


def most(looks: list[Needs], name: str) -> int:
    return max(getattr(one, name) for one in looks)


def usual(looks: list[Needs], name: str) -> float:
    return statistics.median(getattr(one, name) for one in looks)
