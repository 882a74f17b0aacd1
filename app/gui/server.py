"""Serves the window on this machine alone: to who has the key, under no other host's name, asking nothing anywhere."""

import contextlib
import json
import os
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import fastapi
import gradio as gr
import uvicorn
from starlette.middleware.trustedhost import TrustedHostMiddleware

from app.gui.answers import ToldPlainly
from app.gui.context import Context, clocks, turns
from app.gui.gate import Gate, Keys, new_keys
from app.gui.markup import script
from app.gui.pictures import routes
from app.gui.theme import theme
from app.gui.window import build_window
from app.paths import ROOT, Home
from app.queue import Queue
from app.window import HOST
from app.worker import Worker


@dataclass(frozen=True)
class Served:
    address: str
    context: Context


@contextlib.contextmanager
def serving(home: Home, listening: socket.socket, keys: Keys | None = None) -> Iterator[Served]:
    """The window on a socket of this machine, until the block ends. Runs go on after it.

    `keys` let in; without, those of the home folder are made anew.
    """
    os.environ.update(GRADIO_ANALYTICS_ENABLED="False", HF_HUB_DISABLE_TELEMETRY="1", DO_NOT_TRACK="1")
    context = Context(home, Queue(home), Worker(home))
    config = uvicorn.Config(
        build_app(context, keys or new_keys(home)), log_level="error", ws="none", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    context.queue.watch()
    try:
        yield Served(f"http://{HOST}:{listening.getsockname()[1]}/", context)
    finally:
        context.queue.close()
        context.worker.close()
        server.should_exit = True
        thread.join(5)


def build_app(context: Context, keys: Keys) -> fastapi.FastAPI:
    """The window and its pictures as one web application."""
    app = fastapi.FastAPI(openapi_url=None)
    # Another site's page can make a browser ask 127.0.0.1, but only under that site's name [DNS rebinding].
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])
    app.add_middleware(ToldPlainly)
    app.add_middleware(Gate, keys=keys)
    app.include_router(routes(context.home))
    window = build_window(context)
    in_turn = f"const TURNS = {json.dumps(turns(window))}, CLOCKS = {json.dumps(clocks(window))};"
    return gr.mount_gradio_app(
        app,
        window,
        path="/",
        server_name=HOST,
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        show_error=True,
        theme=theme(),
        css_paths=sorted((ROOT / "assets" / "css").glob("*.css")),
        head=f"<script>{in_turn}{script('in_turn.js', 'told.js')}</script>",
        mcp_server=False,
        enable_monitoring=False,
    )
