"""`darkroom --window`: a window of its own around the same server, which ends with it; runs go on."""

import socket
import sys
import urllib.request
from collections.abc import Callable
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest

from app import jobs, runs
from app.queue import Queue


class Failure(Exception):
    """pywebview's own."""


class Webview(SimpleNamespace):
    """Stands in for pywebview: calls `while_open` with the address while the window is open."""

    errors = SimpleNamespace(WebViewException=Failure)

    def __init__(self, while_open: Callable[[str], None]):
        super().__init__(while_open=while_open, opened=[])

    def create_window(self, title: str, address: str, **size: int) -> None:
        self.opened.append((title, address))

    def start(self) -> None:
        ((_, address),) = self.opened
        self.while_open(address)


@pytest.fixture
def webview(monkeypatch) -> Callable[[Callable[[str], None]], Webview]:
    def install(while_open: Callable[[str], None]) -> Webview:
        fake = Webview(while_open)
        monkeypatch.setitem(sys.modules, "webview", fake)
        return fake

    monkeypatch.setenv("DISPLAY", ":0")
    return install


def test_closing_the_window_ends_the_server_and_no_run(darkroom, webview, run, place, engine_mode):
    engine_mode("wait")
    heard = []

    def while_open(address: str) -> None:
        browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        with browser.open(address, timeout=60) as answer:
            heard.append(answer.read().decode())
        Queue(place).add(run)

    fake = webview(while_open)
    said = darkroom("--window")
    try:
        ((title, address),) = fake.opened
        assert (said.code, said.err) == (0, "") and said.out == f"Darkroom is open at {address}\n"
        assert title == "LoRA Darkroom" and title in heard[0]
        where = urlsplit(address)
        assert where.hostname == "127.0.0.1"
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((where.hostname, where.port), 10)
        assert runs.is_alive(run)
    finally:
        jobs.stop(run, wait=lambda: None)


def test_without_pywebview_a_sentence_says_how_to_install_it_and_nothing_is_opened(darkroom, monkeypatch):
    monkeypatch.setitem(sys.modules, "webview", None)
    said = darkroom("--window")
    assert said.code == 1 and said.out == ""
    assert said.err.startswith("A window of its own needs the library pywebview. Install it with: ")
    assert f'{sys.executable} -m pip install "pywebview' in said.err


def test_without_a_toolkit_a_sentence_says_how_to_install_one(darkroom, webview):
    def fail(address: str) -> None:
        raise Failure("You must have either QT or GTK with Python extensions installed in order to use pywebview.")

    webview(fail)
    said = darkroom("--window")
    assert said.code == 1 and "Traceback" not in said.err
    assert said.err.startswith("pywebview finds no toolkit to open a window with. Install one with: ")


@pytest.mark.skipif(sys.platform != "linux", reason="only there may a machine have no screen")
def test_without_a_screen_it_is_said_before_anything_is_served(darkroom, webview, monkeypatch):
    fake = webview(lambda address: None)
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"):
        monkeypatch.delenv(name, raising=False)
    said = darkroom("--window")
    assert (said.code, said.out, fake.opened) == (1, "", [])
    assert said.err.startswith("There is no screen to open a window on. Leave --window out")
