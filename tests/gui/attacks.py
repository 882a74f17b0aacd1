"""What attackers have: requests as they stand, pages of their own, and a look at what has changed and come back."""

import hashlib
import http.client
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from starlette.routing import BaseRoute
from starlette.types import Receive, Scope, Send

from app.gui.server import Served
from app.window import HOST
from tests.gui.test_server import answer, cookie

SECRET = b"a secret of this machine"


def predict(served: Served, event: str, data: list, **more: object) -> tuple[int, bytes]:
    """What the window's own page asks for when something is done on it; its status and answer."""
    body = json.dumps({"fn_index": number_of(served, event), "data": data, "session_hash": "x", **more}).encode()
    status, _, said = answer(served, "gradio_api/run/predict", body, Content_Type="application/json")
    return status, said


def number_of(served: Served, event: str) -> int:
    """Under which number the page asks for an event of that name."""
    events = json.loads(answer(served, "config")[2])["dependencies"]
    return next(one["id"] for one in events if one["api_name"] == event)


def whole(folder: Path) -> dict[str, str]:
    """Every file of a home folder, but those that are made anew whenever they are missing."""
    files = (file for file in folder.rglob("*") if file.is_file() and file.relative_to(folder).parts[0] != "cache")
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def uploaded(home: Path) -> list[Path]:
    return [file for file in (home / "cache" / "uploads").rglob("*") if file.is_file() and file.suffix != ".lock"]


def raw(served: Served, *lines: str, body: bytes = b"") -> tuple[int, bytes]:
    """Status and body of a request that is sent as it stands, with the cookie that lets in."""
    head = "\r\n".join([*lines, f"Cookie: {cookie(served)}", "Connection: close", "", ""])
    with socket.create_connection((HOST, port_of(served)), timeout=60) as connection:
        connection.sendall(head.encode("utf-8") + body)
        response = http.client.HTTPResponse(connection)
        response.begin()
        return response.status, response.read()


def heard_by(monkeypatch: pytest.MonkeyPatch, layer: type) -> list[tuple[str, str]]:
    """Method and path of each request that comes as far as that layer from now on."""
    heard: list[tuple[str, str]] = []
    call = layer.__call__

    async def hear(self: object, scope: Scope, receive: Receive, send: Send) -> None:
        heard.append((scope["method"], scope["path"]))
        await call(self, scope, receive, send)

    monkeypatch.setattr(layer, "__call__", hear)
    return heard


def port_of(served: Served) -> int:
    return urlsplit(served.address).port


def all_routes(routes: list[BaseRoute]) -> Iterator[BaseRoute]:
    """Those of an application, of what is mounted in it, and of the routers that it includes."""
    for route in routes:
        inside = getattr(route, "original_router", route)
        if hasattr(inside, "routes"):
            yield from all_routes(inside.routes)
        else:
            yield route


@contextmanager
def another_site() -> Iterator[int]:
    """The port of a server with one empty page, which is another site's under each name of this machine."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<!doctype html><title>Win a cat</title><p>Nothing to see here.")

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer((HOST, 0), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
