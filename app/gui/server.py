"""Serves the window on this machine alone: 127.0.0.1, no other host's name, no request to anywhere."""

import contextlib
import os
import socket
import threading
import webbrowser
from collections.abc import Iterator
from dataclasses import dataclass

import fastapi
import gradio as gr
import uvicorn
from starlette.middleware.trustedhost import TrustedHostMiddleware

from app.gui.context import Context
from app.gui.pictures import routes
from app.gui.theme import theme
from app.gui.window import build_window
from app.paths import ROOT, Home
from app.queue import Queue
from app.worker import Worker
from trainers.errors import UserError

HOST = "127.0.0.1"
PORTS = range(7860, 7880)  # tried in turn where none is named


@dataclass(frozen=True)
class Served:
    address: str
    context: Context


def build_app(context: Context) -> fastapi.FastAPI:
    """The window and its pictures as one web application."""
    app = fastapi.FastAPI(openapi_url=None)
    # Another site's page can make a browser ask 127.0.0.1, but only under that site's name [DNS rebinding].
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])
    app.include_router(routes(context.home))
    return gr.mount_gradio_app(
        app,
        build_window(context),
        path="/",
        server_name=HOST,
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        show_error=True,
        theme=theme(),
        css_paths=ROOT / "assets" / "app.css",
        mcp_server=False,
        enable_monitoring=False,
    )


@contextlib.contextmanager
def serving(home: Home, port: int | None = None) -> Iterator[Served]:
    """The window on an address, until the block ends. Runs go on after it."""
    os.environ.update(GRADIO_ANALYTICS_ENABLED="False", HF_HUB_DISABLE_TELEMETRY="1", DO_NOT_TRACK="1")
    context = Context(home, Queue(home), Worker(home))
    with _socket(port) as listening:
        config = uvicorn.Config(build_app(context), log_level="error", ws="none", timeout_graceful_shutdown=1)
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


def open_window(home: Home, port: int | None, browser: bool, native: bool, say) -> None:
    """Serve the window until Ctrl-C (or until the native window is closed).

    Raises:
        UserError: the port is taken, or the native window's library is missing.
    """
    with serving(home, port) as served:
        say(f"Darkroom is open at {served.address}")
        if native:
            _native(served.address)
            return
        say("Close it here with Ctrl-C; trainings go on.")
        if browser:
            webbrowser.open(served.address)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()


def _native(address: str) -> None:
    try:
        import webview  # noqa: PLC0415 - an extra: pip install "lora-darkroom[desktop]"
    except ImportError as error:
        raise UserError(
            "The native window needs the library pywebview.", 'Install it with: pip install -e ".[desktop]"'
        ) from error
    webview.create_window("LoRA Darkroom", address, width=1280, height=860)
    webview.start()


def _socket(port: int | None) -> socket.socket:
    """A socket that listens: on the port that was named, else on the first one that is free."""
    for number in PORTS if port is None else [port]:
        listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if os.name != "nt":
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((HOST, number))
            return listening
        except OSError:
            listening.close()
    if port is None:
        raise UserError(f"The ports {PORTS[0]} to {PORTS[-1]} are all taken.", "Name a free one with --port.")
    raise UserError(f"Port {port} is taken.", "Name another with --port, or leave it out.")
