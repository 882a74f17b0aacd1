"""Files of this machine, asked for in every way and spelling: what lies outside the projects stays where it is."""

import http.client
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote, urlencode

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from app import projects
from app.gui.context import Context
from app.gui.gate import Keys
from app.gui.server import build_app
from app.gui.ways import OPEN
from app.paths import Home
from app.queue import Queue
from app.window import HOST
from app.worker import Worker
from tests.gui.attacks import SECRET, all_routes, port_of, predict, uploaded, whole
from tests.gui.test_server import answer, cookie

OPENED = {
    "/",
    "/assets/{path:path}",
    "/config",
    "/darkroom/picture",
    "/favicon.ico",
    "/gradio_api/app_id",
    "/gradio_api/file={path_or_url:path}",
    "/gradio_api/run/{api_name}",
    "/gradio_api/upload",
    "/gradio_api/upload_progress",
    "/static/{path:path}",
    "/theme.css",
}
WITH_FILES = ["/assets/", "/static/", "/gradio_api/file=", "/darkroom/picture?path=", "/darkroom/picture?side=9&path="]
SHUT = [
    "/gradio_api/file/",
    "/gradio_api/proxy=",
    "/gradio_api/custom_component/x/client/",
    "/gradio_api/stream/x/1/1/",
]
# Events of the page that bring a file: its place among what they bring, and whether it is a list.
FIELDS = {"read": (1, False), "on_dropped": (2, False), "take_over": (3, True), "fill": (2, True), "add": (2, True)}
FIELDS |= {"create": (5, True)}


@pytest.fixture
def secrets(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A text, and a picture that says the same in its metadata."""
    folder = tmp_path_factory.mktemp("private")
    (folder / "secret.txt").write_bytes(SECRET)
    said = PngInfo()
    said.add_text("Comment", SECRET.decode())
    Image.new("RGB", (64, 64), "red").save(folder / "secret.png", pnginfo=said)
    return [folder / "secret.txt", folder / "secret.png"]


@pytest.fixture
def linked(served, secrets, tmp_path_factory) -> Path:
    """A project's folder with a picture of its own, and links to the secrets."""
    folder = tmp_path_factory.mktemp("linked")
    Image.new("RGB", (64, 64), "blue").save(folder / "own.png")
    for secret in secrets:
        (folder / f"link{secret.suffix}").symlink_to(secret)
    (folder / "text.png").symlink_to(secrets[0])
    (folder / "folder").symlink_to(secrets[0].parent)
    (folder / "loop.png").symlink_to("loop.png")
    projects.create(served.context.home, "Linked", folder, "object")
    return folder


def spellings(file: Path) -> Iterator[str]:
    """The ways to write a path that some server somewhere has fallen for."""
    plain = file.as_posix()
    up = "../" * 12 + plain.lstrip("/")
    for path in (plain, f"/{plain}", plain.lstrip("/"), up, f"/{up}", f"x/{up}", up.replace("../", "....//")):
        yield quote(path)
        yield quote(path, safe="")
        yield quote(quote(path, safe=""), safe="")
        yield quote(path).replace("..", "%2e%2e")
        yield quote(path).replace("..", "%252e%252e").replace("/", "%252f")
        yield quote(path.replace("/", "\\"), safe="")
        yield quote(path).replace("/", "%c0%af")
    for prefix in ("file://", "file:", "FILE://localhost", "http://127.0.0.1/", "/proc/self/root", "~/..", "//"):
        yield prefix + quote(plain)
        yield quote(prefix + plain, safe="")
    for path in (f"\\\\127.0.0.1\\c$\\{file.name}", f"//127.0.0.1/{plain}", f"\\\\?\\{plain}", f"\\\\.\\{plain}"):
        yield quote(path, safe="")
    for end in ("%00", "%00.png", "/", "/.", "%20", "::$DATA", "?x.png", "%23.png", "%3f.png", ";.png"):
        yield quote(plain) + end


def test_no_spelling_of_a_path_under_any_address_brings_what_lies_outside(served, linked, secrets, home):
    key = (home / "window.key").read_bytes()
    files = [*secrets, home / "window.key", linked / "link.png", linked / "folder" / "secret.png"]
    asked = [before + path for before in WITH_FILES for file in files for path in spellings(file)]
    asked += [before + path for before in SHUT for path in spellings(secrets[0])]
    asked += [WITH_FILES[-1] + quote(str(linked / name)) for name in ("text.png", "loop.png", "link.txt", "gone.png")]
    connection = http.client.HTTPConnection(HOST, port_of(served), timeout=60)
    for path in dict.fromkeys(asked):
        connection.request("GET", path, headers={"Cookie": cookie(served)})
        response = connection.getresponse()
        said = response.read()
        assert response.status in (400, 403, 404, 405, 422) and len(said) < 3000, path
        assert SECRET not in said and key not in said, path
    connection.close()
    assert answer(served, f"darkroom/picture?{urlencode({'path': linked / 'own.png'})}")[0] == 200


def test_what_is_elsewhere_is_not_even_looked_at(served, monkeypatch):
    """On Windows, to look at a file of another machine is to sign in there."""
    looked: list[str] = []

    def heard(function: Callable) -> Callable:
        def call(*values: object, **named: object) -> object:
            looked.append(str(values))
            return function(*values, **named)

        return call

    for module, name in ((os, "stat"), (os, "lstat"), (os, "open"), (socket, "getaddrinfo")):
        monkeypatch.setattr(module, name, heard(getattr(module, name)))
    for where in ("//evil.example/share/cat.png", "\\\\evil.example\\share\\cat.png", "http://evil.example/cat.png"):
        for way in ("gradio_api/file=", "gradio_api/proxy=", "darkroom/picture?path=", "darkroom/picture?side=9&path="):
            assert answer(served, way + quote(where, safe=""))[0] == 404
            assert answer(served, way + quote(where, safe="/:"))[0] == 404
    assert looked and not [one for one in looked if "evil" in one]


def test_a_request_cannot_name_another_file_as_the_dropped_one(served, secrets, home):
    before = whole(home)
    for event, (place, several) in FIELDS.items():
        for path in (*map(str, secrets), "http://evil.example/cat.png", "http://127.0.0.1:1/x", "/proc/self/environ"):
            one = {"path": path, "url": path, "meta": {"_type": "gradio.FileData"}}
            status, said = predict(served, event, [None] * (place - 1) + [[one] if several else one])
            assert status in (203, 500) and SECRET not in said
            assert b"was not uploaded by a user" in said or b"Only files that were dropped on the window" in said
    assert not uploaded(home) and whole(home) == before


def test_a_caption_cannot_be_written_outside_its_project(served, linked, secrets):
    """A card's picture is a name, whatever the request says."""
    private = secrets[0].parent
    before = {file: file.read_bytes() for file in private.iterdir()}
    for name in (f"../{private.name}/secret.png", str(secrets[1]), f"folder/../../{private.name}/secret.png", "\0.png"):
        done = {"act": "caption", "picture": name, "value": "owned", "project": "linked"}
        status, said = predict(served, "act", [None, "linked", "all", "", 0, 0, None], event_data=done)
        assert status == 203 and b"There is no picture" in said, said
    assert {file: file.read_bytes() for file in private.iterdir()} == before


def test_the_window_has_these_addresses_and_no_others(served, home):
    """What else Gradio has, and what it will have one day, is shut."""
    app = build_app(Context(Home(home), Queue(Home(home)), Worker(Home(home))), Keys("x"), home)
    paths = {(method, route.path) for route in all_routes(app.routes) for method in route.methods}
    known = {path for _, path in paths}
    assert len(known) > 50 and known >= OPENED
    assert {path for path in known if path.startswith("/darkroom")} == {"/darkroom/picture"}
    opened = set()
    for method, path in paths:
        status, _, said = answer(served, quote(path[1:], safe="/="), b"" if method == "POST" else None)
        if (status, said) != (404, b"There is nothing here."):
            opened.add(path)
    assert opened <= OPENED
    for path in (
        "/gradio_api/run/create",
        "/gradio_api/upload/",
        "/darkroom/picture/",
        "//config",
        "/config/",
        "/CONFIG",
    ):
        assert not OPEN.fullmatch(path)
