"""Events that write to the same regions wait their turn, so that the answer asked for last is the last one."""

import gradio as gr
import pytest

from app.gui.context import Context, clocks, turns
from app.gui.window import build_window
from app.queue import Queue
from app.worker import Worker


@pytest.fixture
def window(place):
    worker = Worker(place)
    yield build_window(Context(place, Queue(place), worker))
    worker.close()


@pytest.mark.parametrize(
    ("region", "name"),
    [
        ("Pictures", "captions"),
        ("Preview of the change", "captions"),
        ("Settings", "draft"),
        ("Against the preset", "run"),
        ("Chosen runs", "runs"),
        ("Progress of the comparison", "results"),
        ("What you can do", "monitor"),
    ],
)
def test_all_that_writes_to_a_region_waits_its_turn(window, region, name):
    (shown,) = [block for block in window.blocks.values() if isinstance(block, gr.HTML) and block.label == region]
    writing = [number for number, fn in window.fns.items() if shown in fn.outputs]
    assert writing and {turns(window).get(number) for number in writing} == {name}


def test_the_clock_of_the_estimate_waits_for_edits(window):
    (shown,) = [block for block in window.blocks.values() if isinstance(block, gr.HTML) and block.label == "Estimate"]
    assert {turns(window).get(number) for number, fn in window.fns.items() if shown in fn.outputs} == {"draft"}


def test_every_clock_gives_way_to_the_events_of_its_page(window):
    ticking = {number for number, fn in window.fns.items() if ("tick" in [event for _, event in fn.targets])}
    assert set(clocks(window)) == ticking and len(ticking) == 6
    assert sorted(turns(window)[number] for number in ticking) == [
        "captions",
        "draft",
        "monitor",
        "results",
        "run",
        "runs",
    ]
    assert all(len(window.fns[number].outputs) == outputs for number, outputs in clocks(window).items())
