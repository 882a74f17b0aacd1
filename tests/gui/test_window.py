"""The window as a whole: it opens, its pages are found, and a reload comes back to the same one."""

import re

from playwright.sync_api import expect

from app.gui.window import PAGES


def test_every_page_is_a_tab_and_a_reload_stays_on_it(served, open_page):
    page = open_page(served.address)
    for name, (title, _) in PAGES.items():
        page.get_by_role("tab", name=title, exact=True).click()
        expect(page.get_by_role("tabpanel", name=title)).to_be_visible()
        expect(page).to_have_url(re.compile(f"show={name}"))
    page.reload()
    expect(page.get_by_role("tab", name=title, exact=True)).to_have_attribute("aria-selected", "true")
    expect(page.get_by_role("tabpanel", name=title)).to_be_visible()


def test_the_tabs_are_reached_by_arrow_keys(served, open_page):
    page = open_page(served.address)
    page.get_by_role("tab", name="Concept", exact=True).focus()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("tab", name="Train", exact=True)).to_be_focused()
    expect(page.get_by_role("tabpanel", name="Train")).to_be_visible()
