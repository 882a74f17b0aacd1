"""A window of its own in place of a browser, with pywebview, an extra."""

import logging
import os
import sys
from types import ModuleType

from trainers.errors import UserError

TITLE = "LoRA Darkroom"
SIZE = {"width": 1280, "height": 860}
SCREENS = ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM")  # one of them is set where there is a screen, on Linux
INSTALL = f'{sys.executable} -m pip install "{{}}"'
WANTED = "pywebview[qt]" if sys.platform == "linux" else "pywebview"  # there it comes without a toolkit to draw with


def require_webview() -> ModuleType:
    """pywebview. UserError where it is missing, or there is no screen: Qt would end the process without a word."""
    try:
        import webview  # noqa: PLC0415 - an extra
    except ImportError as error:
        hint = f"Install it with: {INSTALL.format(WANTED)}"
        raise UserError("A window of its own needs the library pywebview.", hint) from error
    if sys.platform == "linux" and not any(map(os.environ.get, SCREENS)):
        raise UserError(
            "There is no screen to open a window on.", "Leave --window out, and open the address it prints."
        )
    return webview


def show(webview: ModuleType, address: str) -> None:
    """Show a page and wait until the window is closed; in the main thread, as the systems want it.

    UserError where pywebview finds nothing to draw with.
    """
    logging.getLogger("pywebview").setLevel(logging.CRITICAL)  # it tells of each toolkit that is missing, at length
    webview.create_window(TITLE, address, **SIZE)
    try:
        webview.start()
    except webview.errors.WebViewException as error:
        hint = f"Install one with: {INSTALL.format(WANTED)}"
        raise UserError("pywebview finds no toolkit to open a window with.", hint) from error
