"""Who may use the window: the browser that this app opened, from the window's own pages.

Other programs and accounts of this machine reach 127.0.0.1 too, and any site's page can make a browser ask it. So every
request must bring the key: the address that the app opens has it, and leaves it in the browser as a cookie. A browser
says from which page a request comes [Origin, Fetch Metadata]; other sites' pages are refused even with it.
"""

import hmac
import os
import secrets
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

from app.paths import Home
from trainers.errors import UserError

NAME = "darkroom"  # of the cookie, before the port: browsers send cookies to all ports of a host
WORD = "key"  # in the address
YEAR = 365 * 24 * 3600
OWN = ("same-origin", "none")  # Sec-Fetch-Site of the window's own requests, and of an address that a person typed
NO_ENTRY = (
    "<!doctype html><title>LoRA Darkroom</title><p>This window opens with the address that the app printed when it "
    "started, or opens by itself. Start it again, or copy the whole address.</p>"
)
Scope, Message = dict[str, Any], dict[str, Any]
Receive, Send = Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]


def key_of(home: Home) -> str:
    """The home folder's own key, made at the first call; only its owner can read the file.

    It is the same at every start, so that a page that is open goes on after a restart of the app.
    """
    file = home.root / "window.key"
    try:
        try:
            with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as opened:
                opened.write(secrets.token_urlsafe(32))
        except FileExistsError:
            pass
        key = file.read_text("utf-8")
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read or written: {error}.", "Delete it, and start again.") from error
    if len(key) < 32:
        raise UserError(f"{file} is damaged.", "Delete it, and start again.")
    return key


def entrance(address: str, key: str) -> str:
    """The address that lets a browser in."""
    return f"{address}?{WORD}={key}"


class Gate:
    """Between browser and window: lets in who brings the key, and no other site's page."""

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]], key: str):
        self.app, self.key = app, key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        asked = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        name = f"{NAME}_{scope['server'][1]}"
        brought = [value for word, value in asked if word == WORD]
        if brought and scope["method"] == "GET" and self._is_key(brought[0]):
            rest = urlencode([pair for pair in asked if pair[0] != WORD])
            cookie = f"{name}={self.key}; Path=/; Max-Age={YEAR}; HttpOnly; SameSite=Strict"
            place = "/" + quote(scope["path"].lstrip("/")) + f"?{rest}" * bool(rest)
            return await _answer(send, 303, b"", (b"location", place.encode()), (b"set-cookie", cookie.encode()))
        if not _from_own_page(headers) or not self._is_key(_cookie(headers.get("cookie", ""), name)):
            return await _answer(send, 403, NO_ENTRY.encode(), (b"content-type", b"text/html; charset=utf-8"))
        return await self.app(scope, receive, send)

    def _is_key(self, brought: str) -> bool:
        return hmac.compare_digest(brought.encode("utf-8", "replace"), self.key.encode())


def _from_own_page(headers: dict[str, str]) -> bool:
    """Browsers say where a request comes from; programs need not, and have no cookie of anybody's."""
    origin, site = headers.get("origin"), headers.get("sec-fetch-site")
    return (origin is None or origin == f"http://{headers.get('host')}") and (site is None or site in OWN)


def _cookie(line: str, name: str) -> str:
    """What a cookie holds, "" where it is not there; the others are of other programs on this machine's ports."""
    found = dict(pair.strip().partition("=")[::2] for pair in line.split(";"))
    return found.get(name, "")


async def _answer(send: Send, status: int, body: bytes, *headers: tuple[bytes, bytes]) -> None:
    await send(
        {"type": "http.response.start", "status": status, "headers": [*headers, (b"cache-control", b"no-store")]}
    )
    await send({"type": "http.response.body", "body": body})
