"""Answers that come late change nothing of what has been asked for since."""

import json

import pytest
from playwright.sync_api import Locator, Page, Route, expect

from app import projects
from app.gui.markup import script
from app.gui.server import Served
from tests.gui.conftest import let_in
from tests.gui.held import Held


def make_cat(page: Page) -> None:
    page.get_by_role("button", name="New project").first.click()
    page.get_by_label("Name of the new project").fill("Cat")
    page.get_by_role("button", name="Create project").click()
    expect(field(page, "Project")).to_have_value("Cat")


def field(page: Page, label: str) -> Locator:
    return page.get_by_role("tabpanel", name="Concept").get_by_label(label, exact=True)


def assert_cat_is_worked_on(page: Page, served: Served) -> None:
    """By what is typed, and by the pages that are gone to."""
    field(page, "Trigger word").fill("zib")
    field(page, "Trigger word").press("Tab")
    expect(page.get_by_text("Drop them above")).to_be_visible()
    page.get_by_role("tab", name="Train", exact=True).click()
    expect(page.get_by_role("tabpanel", name="Train").get_by_label("Project", exact=True)).to_have_value("Cat")
    page.get_by_role("tab", name="Concept", exact=True).click()
    expect(field(page, "Project")).to_have_value("Cat")
    expect(field(page, "Trigger word")).to_have_value("zib")
    found = {one.name: one.trigger for one in projects.list_projects(served.context.home)}
    assert found.pop("Cat") == "zib" and "zib" not in found.values()


@pytest.fixture
def opened(open_page, served) -> tuple[Page, Held]:
    """A page whose first question to the server, where its address leads, is not answered yet."""
    page = open_page("about:blank")
    let_in(page.context, served.address, served.context.home)
    held = Held(page, lambda asked: True)
    page.goto(served.address)
    return page, held


def test_a_project_made_while_the_window_still_opens_is_the_one_that_is_worked_on(served, opened):
    page, held = opened
    make_cat(page)
    held.let()
    assert_cat_is_worked_on(page, served)


def test_a_late_answer_to_a_click_on_a_tab_does_not_bring_another_project_back(served, open_page):
    page = open_page(served.address)
    expect(page.get_by_label("Caption of banana.png")).to_be_visible()
    held = Held(page, lambda asked: (asked.get("event_data") or {}).get("page") == "train")
    page.get_by_role("tab", name="Train", exact=True).click()
    page.get_by_role("tab", name="Concept", exact=True).click()
    make_cat(page)
    held.let()
    assert_cat_is_worked_on(page, served)


def test_nothing_is_shown_of_a_clocks_answer_that_an_event_has_overtaken(served, open_page):
    window = open_page(served.address)
    expect(window.get_by_role("tab", name="Library", exact=True)).to_be_visible()
    turns, outputs = window.evaluate("TURNS"), window.evaluate("CLOCKS")
    clock = next(number for number, name in turns.items() if name == "runs" and number in outputs)
    event = next(number for number, name in turns.items() if name == "runs" and number not in outputs)
    page, late = window.context.new_page(), []

    def heard(route: Route) -> None:
        """The clock's first answer comes after the event's."""
        if not late:
            late.append(route)
            return
        route.fulfill(json={"data": ["in time"]})
        if len(late) == 1:
            late.append(late[0].fulfill(json={"data": ["late"]}))

    page.route("**/*", lambda route: route.fulfill(content_type="text/html", body=""))  # asks for nothing by itself
    page.route("**/run/predict", heard)
    page.goto(served.address)
    page.add_script_tag(content=f"const TURNS = {json.dumps(turns)}, CLOCKS = {json.dumps(outputs)};")
    page.add_script_tag(content=script("in_turn.js"))
    answers = page.evaluate(
        """async ([clock, event]) => {
            const asked = (number) => ({method: 'POST', body: JSON.stringify({fn_index: number})});
            const ask = async (number) => (await (await fetch('run/predict', asked(number))).json()).data;
            const late = ask(clock), own = await ask(event);
            return [await late, own, await ask(clock)];
        }""",
        [clock, event],
    )
    assert answers == [[{"__type__": "update"}] * outputs[clock], ["in time"], ["in time"]]
