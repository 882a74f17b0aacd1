"""Opens the window: a socket that listens at once, a browser that waits at it, and the server behind both."""

import contextlib
import os
import socket
import threading
import webbrowser
from collections.abc import Callable

from app import native_window
from app.gui.gate import entrance, new_keys
from app.paths import Home
from app.quick_import import quick_import
from trainers.errors import UserError

HOST = "127.0.0.1"
PORTS = range(7860, 7880)  # tried in turn where none is named


def open_window(home: Home, port: int | None, browser: bool, native: bool, say: Callable[[str], None]) -> None:
    """Serve the window until Ctrl-C, or until the native window is closed. Runs go on after it.

    Raises:
        UserError: the port is taken, or there is no native window on this machine.
    """
    webview = native_window.require_webview() if native else None
    with listen(port) as listening:
        place, keys = f"http://{HOST}:{listening.getsockname()[1]}/", new_keys(home)
        address = entrance(place, keys.key)
        if browser and not native:  # before Gradio is loaded, which takes as long as a browser does to start
            threading.Thread(target=webbrowser.open, args=[entrance(place, keys.another())], daemon=True).start()
        with quick_import():
            from app.gui.server import serving  # noqa: PLC0415 - loads Gradio

        with serving(home, listening, keys):
            say(f"Darkroom is open at {address}")
            if webview:
                native_window.show(webview, address)
                return
            say("Ctrl-C closes it; runs in training go on.")
            with contextlib.suppress(KeyboardInterrupt):
                threading.Event().wait()


def listen(port: int | None = None) -> socket.socket:
    """A socket that listens on this machine alone: on the port that is named, else on the first free one."""
    for number in PORTS if port is None else [port]:
        # The protocol is named because asyncio turns Nagle's algorithm off only then: 40 ms of most answers.
        listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        if os.name != "nt":  # there it would let two programs have one port
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((HOST, number))
            listening.listen(128)
            return listening
        except (OSError, OverflowError):
            listening.close()
    if port is None:
        raise UserError(f"The ports {PORTS[0]} to {PORTS[-1]} are all taken.", "Name a free one with --port.")
    raise UserError(f"Port {port} cannot be used.", "It may be taken: name another with --port, or leave it out.")
