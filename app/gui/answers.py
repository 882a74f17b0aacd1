"""Answers to the browser: they go before all other work, and what tells a person something is no failure."""

import json

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.modesty import going_first

PREDICT = "/gradio_api/run/predict"
TOLD = 203  # any success but 200, which Gradio's page takes for an answer with data


class ToldPlainly:
    """Between browser and Gradio: a `gr.Error`, which Gradio answers with 500, comes as 203.

    A browser reports each 500 in its console as a fault of the page, and Gradio's page does not show the error of an
    event outside its queue: assets/told.js does. Whatever nobody foresaw stays a 500.
    """

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        held: Message = {}

        async def pass_on(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == 500:
                held.update(message)  # until its body says what it is
                return
            if held:
                told = message["type"] == "http.response.body" and is_told(message.get("body", b""))
                await send({**held, "status": TOLD if told else 500})
                held.clear()
            await send(message)

        await self.app(scope, receive, pass_on if scope["type"] == "http" else send)


class GoesFirst:
    """Between browser and Gradio: work that gives way rests while the page waits for what a person did."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != PREDICT:
            await self.app(scope, receive, send)
            return
        with going_first():
            await self.app(scope, receive, send)


def is_told(body: bytes) -> bool:
    """Whether a body is Gradio's of a `gr.Error`, which alone has a title."""
    try:
        content = json.loads(body)
    except ValueError:
        return False
    return isinstance(content, dict) and "error" in content and "title" in content
