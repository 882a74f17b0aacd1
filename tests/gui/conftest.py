"""The window in a real browser, through the real server: no sleep, no console error, no request to another machine."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect, sync_playwright

from app.gui.gate import NAME, key_of
from app.gui.server import Served, serving
from app.paths import Home
from app.window import HOST, listen

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
PATIENCE = 60_000  # ms: what is expected is waited for, on a busy machine as well
SIZE = {"width": 1280, "height": 800}
expect.set_options(timeout=PATIENCE)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents and "browser" in getattr(item, "fixturenames", ()):
            item.add_marker("gui")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    assert program, "These tests need Chromium: install it (Debian, Ubuntu: sudo apt install chromium)."
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=program, args=QUIET)


@pytest.fixture
def served(home: Path) -> Iterator[Served]:
    """The window of an empty home folder."""
    with listen() as listening, serving(Home(home), listening) as found:
        yield found


@pytest.fixture
def open_page(browser: Browser, home: Path) -> Iterator[Callable[..., Page]]:
    """Call it with an address: a page there, as in a browser tab of its own that the window knows.

    At the end none may have complained.
    """
    complaints: list[str] = []
    pages: list[Page] = []

    def call(address: str, theme: str = "light", **options: object) -> Page:
        context = browser.new_context(viewport=SIZE, color_scheme=theme, **options)
        let_in(context, address, Home(home))
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.on(
            "pageerror", lambda error: None if is_cut_off(str(error)) else complaints.append(f"{page.url}: {error}")
        )
        page.on("console", lambda m: complaints.append(f"{page.url}: {m.text}") if is_complaint(m) else None)
        page.on("request", lambda request: None if is_local(request.url) else complaints.append(request.url))
        pages.append(page)
        joined = "&" if "?" in address else "?"
        page.goto(f"{address}{joined}__theme={theme}")
        page.evaluate("document.fonts.ready.then(() => true)")
        return page

    yield call
    for page in pages:
        page.context.close()
    assert not complaints


def let_in(context: BrowserContext, address: str, home: Home) -> None:
    """As if the app had opened the browser."""
    if port := urlsplit(address).port:
        context.add_cookies([{"name": f"{NAME}_{port}", "value": key_of(home), "url": f"http://{HOST}:{port}"}])


def photograph(page: Page, name: str) -> None:
    """A picture of the page in both themes in the folder that DARKROOM_SHOTS names, to be looked at; else none."""
    folder = os.environ.get("DARKROOM_SHOTS")
    if not folder:
        return
    Path(folder).mkdir(parents=True, exist_ok=True)
    dark = page.evaluate("document.body.classList.contains('dark')")
    for theme in (True, False):
        page.evaluate("(dark) => document.body.classList.toggle('dark', dark)", theme)
        page.screenshot(path=Path(folder) / f"{name}_{'dark' if theme else 'light'}_{SIZE['width']}.png")
    page.evaluate("(dark) => document.body.classList.toggle('dark', dark)", dark)


def is_complaint(message: ConsoleMessage) -> bool:
    return message.type == "error" and not is_cut_off(message.text)


def is_cut_off(words: str) -> bool:
    """A reload cuts off what is being answered just then, and Gradio says so on the page that goes."""
    known = ("BodyStreamBuffer was aborted", "Unexpected error Connection errored out", "signal is aborted without")
    return any(one in words for one in known)


def is_local(address: str) -> bool:
    return address.startswith(("http://127.0.0.1:", "data:", "blob:http://127.0.0.1:"))
