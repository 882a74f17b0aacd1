"""Measures the window: `python -m tests.gui.measure` prints seconds and memory, on a quiet machine.

From the start of the program to a page that can be used; its memory; the same with a project of 2,000 pictures with
captions; and how long a page takes to answer what a person does.
"""

import argparse
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import psutil
from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright

from app import projects
from app.gui.gate import FILE, entrance, key_of
from app.paths import ROOT, Home
from tests.gui.conftest import BROWSERS, QUIET, SIZE

PICTURES = 2000
ROUNDS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=PICTURES)
    count = parser.parse_args().pictures
    with tempfile.TemporaryDirectory() as place, sync_playwright() as playwright:
        home = Home(Path(place) / "home")
        home.root.mkdir()
        program = next(filter(None, map(shutil.which, BROWSERS)))
        page = playwright.chromium.launch(executable_path=program, args=QUIET).new_page(viewport=SIZE)
        for _ in range(3):
            window, seconds = opened(home, page, "Concept")
            say("opens, to a page that can be used", seconds)
            close(window)
        window, _ = opened(home, page, "Concept")
        expect(page.get_by_label("Caption of banana.png")).to_be_visible()
        say("memory with the sample concept", memory(window), "MB")
        close(window)

        projects.create(home, "Many", make_pictures(Path(place) / "many", count), "object", "zor")
        window, seconds = opened(home, page, "Concept", "&project=many")
        expect(page.locator(".dr-picture").first).to_be_visible()
        say(f"opens at {count} pictures", seconds)
        expect(page.locator(".dr-crop").first).to_be_visible()
        say("until the first crops are drawn", time.monotonic() - window.began)
        page.wait_for_function("!document.body.innerText.includes('Looking at the pictures')", timeout=600_000)
        say("memory once all are looked at", memory(window), "MB")
        interactions(page, count)
        close(window)


WATCH = """
    for (const deed of ['click', 'change']) addEventListener(deed, () => { window.began ||= performance.now(); }, true);
    window.watched = (holds) => {
        window.began = window.answer = 0;
        const observer = new MutationObserver(() => {
            if (!window.began || !holds()) return;
            observer.disconnect();
            requestAnimationFrame(() => { window.answer = performance.now() - window.began; });
        });
        observer.observe(document, {subtree: true, childList: true, attributes: true, characterData: true});
    };
"""


def interactions(page: Page, count: int) -> None:
    """Medians of a few rounds, in the browser's own clock: from a person's deed to the frame that shows the answer."""
    page.evaluate(WATCH)

    def answer(deed: Callable[[], None], holds: str, given: object = None) -> float:
        """Seconds from the deed to the frame in which a condition on `given` holds."""
        page.evaluate(f"given => watched(() => ({holds})(given))", given)
        deed()
        return page.wait_for_function("window.answer").json_value() / 1000

    def turn() -> float:
        first = page.locator(".dr-picture").first.get_attribute("aria-label")
        turned = "was => document.querySelector('.dr-picture').ariaLabel !== was"
        return answer(page.get_by_role("button", name="Next page").click, turned, first)

    cards = iter(range(ROUNDS))

    def caption() -> float:
        card = page.locator(".dr-picture").nth(next(cards))
        name = card.get_attribute("aria-label")
        card.locator("textarea").fill(f"a zor {time.monotonic_ns()}")
        told = "told => document.querySelector('#page-concept [data-act=undo]')?.title.includes(told)"
        return answer(lambda: card.locator("textarea").press("Tab"), told, f"the caption of {name}")

    def tab(name: str) -> Callable[[], float]:
        shown = "id => document.getElementById(id).offsetHeight > 0"
        return lambda: answer(page.get_by_role("tab", name=name, exact=True).click, shown, f"page-{name.lower()}")

    timed("turn a page of pictures", turn)
    timed("edit a caption", caption)
    names = ("Train", "Monitor", "Results", "Library", "Concept")
    for name in names:
        timed(f"turn to {name} for the first time", tab(name), rounds=1)
    again = [(name, tab(name)()) for _ in range(ROUNDS) for name in names]
    for name in names:
        say(f"turn to {name} again", median(seconds for turned, seconds in again if turned == name))
    tab("Train")()
    rank = page.get_by_label("Rank", exact=True)
    preset, other = rank.input_value(), "9"

    def setting() -> float:
        value = other if rank.input_value() == preset else preset
        rank.fill(value)
        marked = "there => Boolean(document.querySelector('[aria-label^=\"Rank: back\"]')) === there"
        return answer(lambda: rank.press("Tab"), marked, value == other)

    timed("change a setting", setting)


def timed(what: str, deed: Callable[[], float], rounds: int = ROUNDS) -> None:
    say(what, median(deed() for _ in range(rounds)))


def opened(home: Home, page: Page, title: str, more: str = "") -> tuple[subprocess.Popen, float]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    page.goto("about:blank")
    began = time.monotonic()
    command = [sys.executable, str(ROOT / "darkroom.py")] if (ROOT / ".venv").exists() else [sys.executable, "-m"]
    command += [] if (ROOT / ".venv").exists() else ["app.cli"]
    window = subprocess.Popen(
        [*command, "--home", str(home.root), "--no-browser", "--port", str(port)], stdout=subprocess.DEVNULL, cwd=ROOT
    )
    window.began = began
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            break
        except OSError:
            time.sleep(0.01)
    while not ((home.root / FILE).exists() and key_of(home)):
        time.sleep(0.001)
    page.goto(f"{entrance(f'http://127.0.0.1:{port}/', key_of(home))}&show={title.lower()}{more}")
    expect(page.get_by_role("tabpanel", name=title)).to_be_visible()
    return window, time.monotonic() - began


def close(window: subprocess.Popen) -> None:
    window.terminate()
    window.wait()


def memory(window: subprocess.Popen) -> float:
    """MB that the window's own process holds."""
    return psutil.Process(window.pid).memory_info().rss / 2**20


def make_pictures(folder: Path, count: int) -> Path:
    """JPEGs of 1024 x 768, each another one, with captions."""
    folder.mkdir()
    random = np.random.default_rng(0)
    for i in range(count):
        small = random.integers(0, 255, (12, 16, 3), dtype=np.uint8)
        Image.fromarray(small).resize((1024, 768), Image.Resampling.BICUBIC).save(folder / f"{i:04d}.jpg", quality=80)
        (folder / f"{i:04d}.txt").write_text(f"a zor number {i}, on a table", "utf-8")
    return folder


def say(what: str, value: float, unit: str = "s") -> None:
    sys.stdout.write(f"{what}: {value:.2f} {unit}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
