"""What the window's server gives to whom: to its own browser pictures of the project folders; to others nothing."""

import json
import os
import socket
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import expect

from app import projects
from app.gui.gate import NAME, entrance, key_of, new_keys
from app.gui.server import Served, serving
from app.paths import CONCEPTS, ROOT, Home
from app.window import HOST, listen
from trainers.errors import UserError


def answer(served: Served, path: str = "", data: bytes | None = None, **headers: str) -> tuple[int, str, bytes]:
    """Status, type and body of a request with the cookie that the window's own browser has."""
    return stranger(served, path, data, **{"Cookie": f"other=1; {cookie(served)}", **headers})


def stranger(served: Served, path: str = "", data: bytes | None = None, **headers: str) -> tuple[int, str, bytes]:
    """The same without it."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        with urllib.request.urlopen(urllib.request.Request(served.address + path, data, named)) as response:
            return response.status, response.headers["Content-Type"], response.read()
    except urllib.error.HTTPError as error:
        return error.code, "", error.read()


def cookie(served: Served) -> str:
    return f"{NAME}_{urllib.parse.urlsplit(served.address).port}={key_of(served.context.home)}"


def picture(served: Served, path: Path, side: int = 0) -> tuple[int, str, bytes]:
    return answer(served, f"darkroom/picture?{urllib.parse.urlencode({'path': path, 'side': side})}")


def test_only_pictures_of_the_project_folders_are_served(served, home, tmp_path_factory):
    linked, other = tmp_path_factory.mktemp("linked"), tmp_path_factory.mktemp("other")
    for folder in (linked, other):
        Image.new("RGB", (900, 600), "red").save(folder / "cat's 漢字.png")
    (linked / "cat.txt").write_text("a secret", "utf-8")
    projects.create(Home(home), "Cat", linked, "object")
    (linked / "stolen.png").symlink_to(other / "cat's 漢字.png")
    assert picture(served, linked / "cat's 漢字.png")[:2] == (200, "image/png")
    status, kind, small = picture(served, linked / "cat's 漢字.png", side=200)
    assert (status, kind) == (200, "image/webp") and len(small) < 5000
    assert picture(served, next((CONCEPTS / "mascot").glob("*.png")))[0] == 200
    for hidden in (other / "cat's 漢字.png", linked / "stolen.png", linked / "cat.txt", linked / "none.png", home):
        assert picture(served, hidden)[0] == 404
    for side in (0, 160):  # a name that no file system takes
        assert picture(served, home / "projects" / f"{'a' * 300}.png", side)[0] == 404
    assert picture(served, linked / ".." / other.name / "cat's 漢字.png")[0] == 404


def test_another_sites_name_is_refused(served):
    assert answer(served)[0] == 200
    assert answer(served, Host="evil.example")[0] == 400


PATHS = ("", "config", "darkroom/picture?path=x", "gradio_api/run/predict", "gradio_api/upload", "gradio_api/info")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("data", [None, b"{}"], ids=["get", "post"])
def test_nothing_is_told_or_done_without_the_key(served, path, data):
    wrong = cookie(served)[:-1] + ("a" if cookie(served)[-1] != "a" else "b")
    for headers in ({}, {"Cookie": wrong}, {"Cookie": "darkroom=; ;="}):
        status, _, body = stranger(served, path, data, **headers)
        assert status == 403 and b"This window opens with the address" in body
    assert stranger(served, f"{path}{'&' if '?' in path else '?'}key=wrong", data)[0] == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},  # another port of this machine
    ],
    ids=lambda headers: " ".join(headers.values()),
)
def test_another_sites_page_is_refused_even_with_the_cookie(served, headers):
    named = {name.replace("-", "_"): value for name, value in headers.items()}
    assert answer(served, "gradio_api/run/predict", b"{}", **named)[0] == 403
    own = served.address.removesuffix("/")
    assert answer(served, "", Origin=own, Sec_Fetch_Site="same-origin")[0] == 200


def test_the_address_that_the_app_opens_lets_in_and_leaves_the_key_out_of_sight(served, browser):
    page = browser.new_context().new_page()
    page.goto(served.address)
    expect(page.get_by_text("This window opens with the address")).to_be_visible()
    page.goto(entrance(served.address, key_of(served.context.home)) + "&show=train")
    expect(page).to_have_url(f"{served.address}?show=train")
    expect(page.get_by_role("tab", name="Train", exact=True)).to_have_attribute("aria-selected", "true")
    (left,) = page.context.cookies()
    assert left["httpOnly"] and left["sameSite"] == "Strict"
    page.context.close()


def test_the_address_lets_in_from_another_sites_page_too(served, browser):
    """As from a terminal in a browser, or a mail: the request is that site's, and its redirects would be too."""
    page = browser.new_context().new_page()
    address = entrance(served.address, key_of(served.context.home))
    page.goto(f"data:text/html,<a href='{address}'>open</a>")
    page.get_by_text("open").click()
    expect(page.get_by_role("tab", name="Train", exact=True)).to_be_visible()
    page.context.close()


def test_a_word_for_a_command_line_lets_in_once(home):
    keys = new_keys(Home(home))
    word = keys.another()
    assert not keys.let_in(word[:-1]) and not keys.let_in("") and keys.let_in(word) and not keys.let_in(word)
    assert keys.let_in(keys.key) and keys.let_in(keys.key)


def test_the_key_is_another_one_at_each_start_and_its_owners_alone(home):
    first, second = new_keys(Home(home)).key, new_keys(Home(home)).key
    assert first != second == key_of(Home(home)) and len(first) >= 32
    if os.name == "posix":
        assert (home / "window.key").stat().st_mode & 0o777 == 0o600


def test_a_file_of_the_machine_cannot_be_fetched_through_gradio(served, tmp_path_factory):
    secret = tmp_path_factory.mktemp("private") / "secret.txt"
    secret.write_text("a secret", "utf-8")
    for path in (secret, ROOT / "pyproject.toml"):
        assert answer(served, f"gradio_api/file={urllib.parse.quote(str(path))}")[0] in (403, 404)


def test_a_taken_port_is_a_sentence_and_else_the_next_one_is_used():
    with listen() as first, listen() as second:
        port = first.getsockname()[1]
        assert first.getsockname()[0] == HOST and second.getsockname()[1] != port
        with pytest.raises(UserError, match=f"Port {port} cannot be used"):
            listen(port)


def test_answers_are_sent_at_once():
    with listen() as listening:
        assert listening.proto == socket.IPPROTO_TCP  # asyncio turns Nagle's algorithm off for these alone


def test_what_a_closed_window_left_of_an_archive_goes_and_what_another_one_writes_stays(home):
    archive = Home(home).archive
    left, restoring, fresh = (
        archive / name for name in (".a.zip.1.partial", ".restoring-2.partial", ".b.zip.3.partial")
    )
    for folder in (archive, restoring):
        folder.mkdir(parents=True)
    left.write_bytes(b"x"), fresh.write_bytes(b"x"), (restoring / "big").write_bytes(b"x")
    for old in (left, restoring):
        os.utime(old, (0, 0))
    with listen() as listening, serving(Home(home), listening):
        assert list(archive.iterdir()) == [fresh]


def test_the_windows_process_is_free_of_torch(home):
    program = """
import json, sys, urllib.request
from app.gui.gate import entrance, key_of
from app.gui.server import serving
from app.paths import find_home
from app.window import listen
with listen() as listening, serving(find_home(), listening) as served:
    browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
    browser.open(entrance(served.address, key_of(find_home())))
    page = browser.open(served.address).read().decode()
    heavy = [name for name in ("torch", "diffusers", "transformers", "peft") if name in sys.modules]
    print(json.dumps({"title": "LoRA Darkroom" in page, "heavy": heavy}))
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {"title": True, "heavy": []}
