"""Who may use the window: the browser that this app opened, from the window's own pages.

Other accounts of this machine reach 127.0.0.1 too, and any site's page can make a browser ask it. So every request must
bring the key, another one at each start: the address that the app opens leaves it in the browser as a cookie. A browser
says from which page a request comes [Origin, Fetch Metadata]; other sites' pages are refused even with it. Cookies know
no ports: a page of another port of this machine that a person opens is sent it too.
"""

import hmac
import json
import os
import secrets
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, quote, urlencode

from starlette.types import ASGIApp, Receive, Scope, Send

from app.paths import Home
from trainers.errors import UserError

NAME = "darkroom"  # of the cookie, before the port: browsers send cookies to all ports of a host
WORD = "key"  # in the address
FILE = "window.key"  # in the home folder
OWN = ("same-origin", "none")  # Sec-Fetch-Site of the window's own requests, and of an address that a person typed
# A page of our own that goes on by itself: a redirect would count as the site's that led here, and bring no cookie.
ENTRY = "<!doctype html><title>LoRA Darkroom</title><script>location.replace({})</script>"
NO_ENTRY = (
    "<!doctype html><title>LoRA Darkroom</title><p>This window opens with the address that the app printed when it "
    "started, or opens by itself. Start it again, or copy the whole address.</p>"
)


@dataclass(frozen=True)
class Keys:
    """`key` lets in as often as it is brought, while the app runs; each of `once` a single time."""

    key: str
    once: set[str] = field(default_factory=set)

    def another(self) -> str:
        """A word for a command line, where other accounts can read it: it is worth nothing when it has been used."""
        word = secrets.token_urlsafe(32)
        self.once.add(word)
        return word

    def let_in(self, word: str) -> bool:
        if word in self.once:
            self.once.remove(word)
            return True
        return self.is_key(word)

    def is_key(self, word: str) -> bool:
        return hmac.compare_digest(word.encode("utf-8", "replace"), self.key.encode())


def new_keys(home: Home) -> Keys:
    """Those of this start; the key is also written to a file that only its owner can read. UserError where not."""
    key, file = secrets.token_urlsafe(32), home.root / FILE
    try:
        file.unlink(missing_ok=True)
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as opened:
            opened.write(key)
    except OSError as error:
        raise UserError(f"{file} cannot be written: {error.strerror or error}.") from error
    return Keys(key)


def key_of(home: Home) -> str:
    """The key of the app that was started last."""
    return (home.root / FILE).read_text("utf-8")


def entrance(address: str, word: str) -> str:
    """The address that lets a browser in."""
    return f"{address}?{WORD}={word}"


class Gate:
    """Between browser and window: lets in who brings the key, and no other site's page."""

    def __init__(self, app: ASGIApp, keys: Keys):
        self.app, self.keys = app, keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope["type"] != "http":  # the window needs no sockets of other kinds
            return await send({"type": "websocket.close", "code": 1008})
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        asked = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        name = f"{NAME}_{scope['server'][1]}"
        brought = [value for word, value in asked if word == WORD]
        if brought and scope["method"] == "GET" and self.keys.let_in(brought[0]):
            rest = urlencode([pair for pair in asked if pair[0] != WORD])
            place = "/" + quote(scope["path"].lstrip("/")) + f"?{rest}" * bool(rest)
            cookie = f"{name}={self.keys.key}; Path=/; HttpOnly; SameSite=Strict"
            return await answer(send, 200, ENTRY.format(json.dumps(place)), (b"set-cookie", cookie.encode()))
        if not _from_own_page(headers) or not self.keys.is_key(_cookie(headers.get("cookie", ""), name)):
            await receive()  # else a client that is still sending hears of a broken connection
            return await answer(send, 403, NO_ENTRY)
        return await self.app(scope, receive, send)


async def answer(send: Send, status: int, page: str, *headers: tuple[bytes, bytes]) -> None:
    """One whole answer, to be kept by nobody."""
    told = [*headers, (b"content-type", b"text/html; charset=utf-8"), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": status, "headers": told})
    await send({"type": "http.response.body", "body": page.encode()})


def _from_own_page(headers: dict[str, str]) -> bool:
    """Browsers say where a request comes from; programs need not, and have no cookie of anybody's."""
    origin, site = headers.get("origin"), headers.get("sec-fetch-site")
    return (origin is None or origin == f"http://{headers.get('host')}") and (site is None or site in OWN)


def _cookie(line: str, name: str) -> str:
    """What a cookie holds, "" where it is not there; the others are of other programs on this machine's ports."""
    found = dict(pair.strip().partition("=")[::2] for pair in line.split(";"))
    return found.get(name, "")
