"""Serves the window on this machine alone: to who has the key, under no other host's name, asking nothing anywhere."""

import contextlib
import json
import os
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import fastapi
import gradio as gr
import uvicorn
from starlette.middleware.trustedhost import TrustedHostMiddleware

from app.gui.answers import GoesFirst, ToldPlainly
from app.gui.context import Context, clocks, turns
from app.gui.gate import Gate, Keys, new_keys
from app.gui.markup import script
from app.gui.pictures import routes
from app.gui.session_parts import keep_numbers
from app.gui.theme import theme
from app.gui.uploads import UPLOAD_BYTES, Bounded, only_uploads, upload_folder
from app.gui.ways import Told, Ways
from app.gui.window import build_window
from app.paths import ROOT, Home
from app.queue import Queue
from app.window import HOST
from app.worker import Worker
from trainers.files import DAY, sweep


@dataclass(frozen=True)
class Served:
    address: str
    context: Context


@contextlib.contextmanager
def serving(home: Home, listening: socket.socket, keys: Keys | None = None) -> Iterator[Served]:
    """The window on a socket of this machine, until the block ends. Runs go on after it.

    `keys` let in; without, those of the home folder are made anew.
    """
    with upload_folder(home) as uploads:
        yield from _serving(home, listening, keys or new_keys(home), uploads)


def _serving(home: Home, listening: socket.socket, keys: Keys, uploads: Path) -> Iterator[Served]:
    os.environ.update(GRADIO_ANALYTICS_ENABLED="False", HF_HUB_DISABLE_TELEMETRY="1", DO_NOT_TRACK="1")
    os.environ["GRADIO_TEMP_DIR"] = str(uploads)
    context = Context(home, Queue(home), Worker(home))
    app = build_app(context, keys, uploads)
    config = uvicorn.Config(app, log_level="error", ws="none", proxy_headers=False, timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    context.queue.watch()
    sweep(context.home.archive, DAY)
    try:
        yield Served(f"http://{HOST}:{listening.getsockname()[1]}/", context)
    finally:
        context.queue.close()
        context.worker.close()
        server.should_exit = True
        thread.join(5)


def build_app(context: Context, keys: Keys, uploads: Path) -> fastapi.FastAPI:
    """The window and its pictures as one web application. The last of its middlewares hears a request first."""
    app = fastapi.FastAPI(openapi_url=None)
    # Another site's page can make a browser ask 127.0.0.1, but only under that site's name [DNS rebinding].
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])
    app.add_middleware(ToldPlainly)
    app.add_middleware(GoesFirst)
    app.add_middleware(Bounded, folder=uploads)
    app.add_middleware(Ways, uploads=uploads)
    app.add_middleware(Gate, keys=keys)
    app.add_middleware(Told)
    app.include_router(routes(context.home))
    keep_numbers()
    window = build_window(context)
    only_uploads(window)
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
        head=f"<script>{in_turn}{script('in_turn.js', 'told.js', 'typed.js')}</script>",
        mcp_server=False,
        enable_monitoring=False,
        max_file_size=UPLOAD_BYTES,  # then the page itself says so, before it sends
    )
