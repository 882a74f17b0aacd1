"""Requests that say they come from elsewhere, go elsewhere, or have the key: each is refused, whatever it asks for."""

from itertools import product
from pathlib import Path

import pytest

from app.gui.gate import NAME, new_keys
from app.gui.server import serving
from app.paths import Home
from app.window import listen
from tests.gui.attacks import port_of, raw, whole
from tests.gui.test_server import answer, cookie, stranger

NAMES = [
    "evil.example",
    "127.0.0.1.nip.io",
    "localhost.evil.example",
    "127.0.0.1.",
    "0.0.0.0",  # noqa: S104 - some systems lead it to this machine
    "[::1]",
    "evil.example#127.0.0.1",
    "evil.example/127.0.0.1",
    "",
]


TARGETS = [
    ["GET /config HTTP/1.0"],
    ["GET /config HTTP/1.1", "Host: 127.0.0.1", "Host: evil.example"],
    ["GET /config HTTP/1.1", "Host: evil.example", "Host: 127.0.0.1"],
    ["GET http://evil.example/config HTTP/1.1", "Host: evil.example"],
    ["GET http://evil.example/config HTTP/1.1", "Host: 127.0.0.1:PORT"],
    ["GET http://127.0.0.1:PORT/config HTTP/1.1", "Host: evil.example"],
    ["GET //evil.example/config HTTP/1.1", "Host: 127.0.0.1:PORT"],
    ["CONNECT evil.example:80 HTTP/1.1", "Host: evil.example:80"],
]


def own_port(served, text: str) -> str:
    return text.replace("PORT", str(port_of(served)))


@pytest.mark.parametrize("line", ["GET /config", "POST /gradio_api/upload", "GET /darkroom/picture?path=x"])
def test_another_name_of_this_machine_is_refused_with_the_key(served, home: Path, line):
    before = whole(home)
    for name, port in product(NAMES, ("", ":PORT", ":80")):
        host = own_port(served, f"Host: {name}{port}")
        status, said = raw(served, f"{line} HTTP/1.1", host, "Content-Length: 0")
        assert status == 400 and len(said) < 100, host
    assert whole(home) == before


def test_another_target_is_refused_with_the_key(served):
    for lines in TARGETS:
        status, said = raw(served, *(own_port(served, line) for line in lines))
        assert status in (400, 404) and len(said) < 100, lines


def test_a_name_that_a_proxy_would_tell_is_not_believed(served):
    """The page asks at the address that is written into it."""
    told = {"X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "https", "Forwarded": "host=evil.example"}
    status, _, page = answer(served, "", **told)
    assert status == 200 and b"evil.example" not in page


ORIGINS = ["http://evil.example", "http://127.0.0.1", "http://127.0.0.1:PORT.evil.example", "https://127.0.0.1:PORT"]
ORIGINS += ["http://localhost:PORT", "http://127.0.0.1:1", "file://", "null", "", "http://127.0.0.1:PORT/"]


@pytest.mark.parametrize("line", ["GET /config", "POST /gradio_api/run/predict", "POST /gradio_api/upload"])
def test_another_origin_is_refused_with_the_key(served, line):
    for origin in ORIGINS:
        lines = [f"{line} HTTP/1.1", "Host: 127.0.0.1:PORT", f"Origin: {origin}", "Content-Length: 0"]
        assert raw(served, *(own_port(served, one) for one in lines))[0] == 403, origin


def test_the_key_is_known_at_its_own_place_alone(served):
    key, port = cookie(served).partition("=")[2], port_of(served)
    for headers in (
        {"Authorization": f"Bearer {key}"},
        {"X-Key": key, "Key": key, "Darkroom": key},
        {"Cookie": f"{NAME}={key}"},
        {"Cookie": f"{NAME}_{port + 1}={key}"},
        {"Cookie": f"key={key}; {NAME.upper()}_{port}={key}"},
        {"Cookie": f"{NAME}_{port}={key[:-1]}"},
        {"Cookie": f"{NAME}_{port}={key}x"},
        {"Cookie": f"{NAME}_{port}=é{key[1:]}"},
        {"Referer": f"{served.address}?key={key}"},
    ):
        said = {name: value.encode("utf-8").decode("latin-1") for name, value in headers.items()}
        assert stranger(served, "config", None, **said)[0] == 403
    for path in (key, f"?KEY={key}", f"?key=x&key={key}", f"?key={key[:-1]}", "?key=", f"config;key={key}"):
        assert stranger(served, path)[0] == 403
    for path in ("", "config", "gradio_api/run/predict"):
        assert stranger(served, f"{path}?key={key}", b"{}")[0] == 403  # it opens the window, and does nothing else
        assert stranger(served, path, f"key={key}".encode())[0] == 403


def test_a_word_that_was_used_lets_nobody_in(home: Path):
    keys = new_keys(Home(home))
    word = keys.another()
    with listen() as listening, serving(Home(home), listening, keys) as served:
        assert stranger(served, f"?key={word}", b"")[0] == 403  # only opening the window uses it up
        assert stranger(served, f"?key={word}")[0] == 200
        assert stranger(served, f"?key={word}")[0] == 403
        assert stranger(served, "config", Cookie=f"{NAME}_{port_of(served)}={word}")[0] == 403
        assert answer(served, "config")[0] == 200


def test_the_entrance_leads_nowhere_else(served):
    key = cookie(served).partition("=")[2]
    for path in ("/evil.example", "//evil.example", "%5c%5cevil.example", "</script><script>alert(1)</script>"):
        status, _, page = stranger(served, f"{path.replace('<', '%3C').replace('>', '%3E')}?key={key}&a=</script>")
        assert status == 200 and page.count(b"<script>") == page.count(b"</script>") == 1
        target = page.decode().partition('replace("')[2]
        assert target.startswith("/") and target[1] not in "/\\"
