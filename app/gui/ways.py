"""Which addresses there are behind the gate, and what browsers are told to allow the pages that come from there."""

import os
import re
from pathlib import Path

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.gui.gate import answer

UPLOADED = "/gradio_api/file="
# What the window's own pages ask for. Gradio has three times as many: to record, to edit its apps, to fetch for others.
OPEN = re.compile(
    r"/|/config|/theme\.css|/favicon\.ico|/(assets|static)/(?!.*\.\.)[\w./@ -]{1,200}|/darkroom/picture"
    r"|/gradio_api/(run/predict|upload|upload_progress|app_id|file=.+)"
)
# Gradio would have the page ask there: nothing stands between the browser and this window.
ELSEWHERE = (b"x-forwarded-host", b"x-forwarded-proto", b"x-forwarded-for", b"x-gradio-server", b"forwarded")
# Gradio's pages begin with scripts of their own, make functions of texts, and set styles on their parts.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; "
    "worker-src 'self' blob:; object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)
OF_FILES = "sandbox; default-src 'none'; frame-ancestors 'none'"  # which a person brought, and somebody else made
TOLD = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}


class Told:
    """Around everything else: answers tell the browser what their page may do, and that no other site may use them."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def tell(message: Message) -> None:
            if message["type"] == "http.response.start":
                policy = OF_FILES if scope["path"].startswith(UPLOADED) else POLICY
                said = {**TOLD, "content-security-policy": policy}
                headers = [pair for pair in message["headers"] if pair[0].decode("latin-1").lower() not in said]
                headers += [(name.encode(), value.encode()) for name, value in said.items()]
                message = {**message, "headers": headers}
            await send(message)

        await self.app(scope, receive, tell if scope["type"] == "http" else send)


class Ways:
    """Behind the gate: every address that is not open is not there, whatever Gradio has at it."""

    def __init__(self, app: ASGIApp, uploads: Path):
        self.app, self.uploads = app, uploads

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not self._is_open(scope["path"]):
            await receive()
            return await answer(send, 404, "There is nothing here.")
        headers = [pair for pair in scope.get("headers", ()) if pair[0] not in ELSEWHERE]
        await self.app({**scope, "headers": headers} if scope["type"] == "http" else scope, receive, send)

    def _is_open(self, path: str) -> bool:
        if not OPEN.fullmatch(path):
            return False
        # Decided by the name alone: on Windows, to look at \\host\file is to sign in at that host.
        file = path.removeprefix(UPLOADED)
        return file == path or Path(os.path.normpath(file)).is_relative_to(self.uploads)
