"""What is dropped on the window: how much may come, and a folder of this start alone that it comes into."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import gradio as gr
from gradio import processing_utils
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.dropped import ZIP_BYTES
from app.gui.gate import answer
from app.paths import Home
from trainers.locks import alone, held

PLACE = "/gradio_api/upload"
UPLOAD_BYTES = ZIP_BYTES  # at once: more of a zip is not unpacked, and adapters are smaller
OTHER_BYTES = 64 * 2**20  # of any other request; 20,000 dropped files are named in 8 MB
SPARE = 2**30  # stays free on the disk, for runs in training
LOOK = 64 * 2**20  # bytes between two looks at the disk
LARGE = f"More than the maximum allowed size of {UPLOAD_BYTES >> 30} GB at once."  # so Gradio says 413, else 400
LONG = f"More than {OTHER_BYTES >> 20} MB."
FULL = "The disk is too full for this. Make room, and do it again."
CUT_OFF = "The browser went away."


@contextmanager
def upload_folder(home: Home) -> Iterator[Path]:
    """A folder that only this account can read. It goes when the block ends; what killed starts have left goes now.

    Gradio's own lies where every account may write, and is the same one for all apps that use Gradio.
    """
    place = home.cache / "uploads"
    place.mkdir(parents=True, exist_ok=True)
    for lock in place.glob("*.lock"):
        if held(lock) is False:
            shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
            _remove(lock)
    folder = Path(tempfile.mkdtemp(dir=place))
    lock = folder.with_name(f"{folder.name}.lock")
    with alone(lock):
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    _remove(lock)


def only_uploads(window: gr.Blocks) -> None:
    """A request names as a dropped file what was dropped, and no other file of this machine, or address of another.

    Gradio looks at that only in windows that it launched itself, and it fetches addresses.
    """
    window.has_launched = window.is_running = True
    processing_utils.async_ssrf_protected_download = processing_utils.save_url_to_cache = _refuse


class Bounded:
    """Between browser and Gradio: ends a request that grows too large, or would fill the disk."""

    def __init__(self, app: ASGIApp, folder: Path):
        self.app, self.folder = app, folder

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        refused = self._upload if scope["path"].rstrip("/") == PLACE else _other
        announced = int(dict(scope["headers"]).get(b"content-length", 0))
        if reason := refused(announced, announced):
            while (await receive()).get("more_body"):  # browsers show no answer that comes while they are sending
                pass
            return await answer(send, 413, reason)
        came = looked = 0

        async def counted() -> Message:
            nonlocal came, looked
            message = await receive()
            if message["type"] == "http.disconnect" and refused == self._upload:
                raise MultiPartException(CUT_OFF)  # of all that can go wrong, after this Gradio removes what has come
            came += len(message.get("body", b""))
            if came - looked >= LOOK:
                looked = came
                if reason := refused(came, 0):
                    raise MultiPartException(reason) if refused == self._upload else HTTPException(413, reason)
            return message

        await self.app(scope, counted, send)

    def _upload(self, size: int, to_come: int) -> str:
        """What speaks against an upload, "" if nothing does."""
        if size > UPLOAD_BYTES:
            return LARGE
        return FULL if size and shutil.disk_usage(self.folder).free < to_come + SPARE else ""


def _other(size: int, _: int) -> str:
    return LONG if size > OTHER_BYTES else ""


def _refuse(*_: object, **__: object) -> str:
    raise gr.Error("Only files that were dropped on the window are read.", print_exception=False)


def _remove(file: Path) -> None:
    with suppress(OSError):  # somebody else has opened it
        file.unlink()
