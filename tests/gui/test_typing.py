"""Every change of a text is heard, however it is made, and nothing goes on afterwards."""

import pytest
from playwright.sync_api import Page, Request, expect


@pytest.fixture
def page(served, open_page) -> Page:
    page = open_page(served.address)
    expect(page.get_by_label("Caption of banana.png")).to_be_visible()
    return page


def test_what_is_deleted_cut_and_pasted_is_heard_as_what_is_typed_is(page):
    search, cards = page.get_by_label("Search captions and names"), page.locator(".dr-picture")
    search.press_sequentially("bananas")
    expect(cards).to_have_count(0)
    search.press("Backspace")
    expect(cards).to_have_count(1)
    search.press("ControlOrMeta+a")
    search.press("ControlOrMeta+x")
    expect(cards).to_have_count(24)
    search.press("ControlOrMeta+v")
    expect(cards).to_have_count(1)
    search.press("ControlOrMeta+a")
    search.press("Delete")
    expect(cards).to_have_count(24)


def test_a_change_to_many_captions_concerns_those_that_its_words_name(page):
    page.get_by_role("button", name="Edit many captions").click()
    page.get_by_label("Tag or text").press_sequentially("soft")
    search = page.get_by_label("Search captions and names")
    search.press_sequentially("banana")
    expect(page.get_by_text("Changes 1 caption of the 1 picture shown.")).to_be_visible()
    for _ in "banana":
        search.press("Backspace")
    expect(page.get_by_text("Changes 40 captions of the 40 pictures shown.")).to_be_visible()


@pytest.mark.parametrize("opened", [False, True])
def test_after_fast_typing_it_becomes_quiet(page, opened):
    if opened:
        page.get_by_role("button", name="Edit many captions").click()
        expect(page.get_by_label("Tag or text")).to_be_visible()
    asked: list[Request] = []
    page.on("request", lambda request: asked.append(request) if "run/predict" in request.url else None)
    page.get_by_label("Search captions and names").press_sequentially("banana", delay=25)
    expect(page.locator(".dr-picture")).to_have_count(1)
    page.wait_for_load_state("networkidle")
    assert len(asked) < 50


def test_a_caption_that_is_not_written_yet_is_asked_for_before_the_page_goes(page):
    caption = page.get_by_label("Caption of banana.png")
    caption.press_sequentially("on a plate, ")
    asked: list[str] = []
    page.once("dialog", lambda dialog: (asked.append(dialog.type), dialog.dismiss()))
    page.evaluate("location.reload()")
    expect(caption).to_have_value("on a plate, a fluent style banana")
    page.wait_for_function("() => true")
    assert asked == ["beforeunload"]
    caption.press("Tab")
    expect(page.get_by_text("Last change: the caption of banana.png")).to_be_visible()
    page.reload()
    expect(caption).to_have_value("on a plate, a fluent style banana")


def test_a_list_that_is_left_by_the_keyboard_closes(page):
    framing = page.get_by_label("Show crops for")
    framing.focus()
    expect(page.get_by_role("option", name="512 px")).to_be_visible()
    framing.press("Tab")
    expect(page.get_by_role("option", name="512 px")).to_be_hidden()
