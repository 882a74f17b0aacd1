"""What a browser tab keeps comes back as it went out, and events that must not overtake each other do not."""

import json
import re

import pytest
from playwright.sync_api import Request, expect

from app.framing import Framing
from app.gui.context import Where
from app.gui.kept import kept, mark
from app.gui.library_parts import Shown
from app.gui.library_run import Sent
from app.gui.results_file import Suggested

VALUES = [
    Where("monitor", "cat", "cat/2026-01-02_03-04-05_first", 1.5),
    Shown("cat/one", (), ("cat/one", "cat/two"), 24, 2.5),
    Sent("cat/one", "a", "b", "c", "d"),
    Suggested("cat/one", "漢字", "kohya"),
    Framing(512, 64, "<b>", False, bucket_step=None),
    (250, 500),
    {"run": "cat/one", "visible": [True, False]},
    7,
    True,
    "",
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_a_kept_value_comes_back_from_the_browser_as_it_went_there(value):
    part = kept(value)
    sent = json.loads(json.dumps(part.postprocess(value)))
    back = part.preprocess(sent)
    assert back == value and type(back) is type(value)


def test_a_tab_without_a_value_has_the_first_one():
    assert kept(Where()).preprocess(None) == Where()


def test_marks_are_the_same_in_every_process_and_tell_values_apart():
    assert mark("<p>Step 10</p>") == mark("<p>Step 10</p>") == "850ad06a10"
    assert len({mark(value) for value in VALUES}) == len(VALUES)


def test_an_edit_is_asked_for_when_the_one_before_is_answered(served, open_page):
    page = open_page(f"{served.address}?show=train")
    page.get_by_role("button", name="Try the sample concept").click()
    expect(page.get_by_role("radio", name=re.compile("^Style"))).to_have_attribute("aria-checked", "true")
    heard: list[str] = []

    def of_an_edit(request: Request) -> str:
        """The setting that a request changes."""
        told = json.loads(request.post_data or "{}").get("event_data") or {}
        return told.get("setting", "") if told.get("act") == "set" else ""

    page.on("request", lambda request: heard.append(f"asks {of_an_edit(request)}") if of_an_edit(request) else None)
    page.on("response", lambda a: heard.append(f"has {of_an_edit(a.request)}") if of_an_edit(a.request) else None)
    page.evaluate("""() => {
        for (const [label, value] of [['Steps', '60'], ['Rank', '4']]) {
            const labels = [...document.querySelectorAll('#page-train label')];
            const field = labels.find((one) => one.innerText.trim() === label).control;
            field.value = value;
            field.dispatchEvent(new Event('change', {bubbles: true}));
        }
    }""")
    for label in ("Steps", "Rank"):
        expect(page.get_by_role("button", name=f"{label}: back")).to_be_visible()
    assert heard == ["asks schedule.steps", "has schedule.steps", "asks adapter.rank", "has adapter.rank"]
