"""The window's own addresses for pictures: those of the project folders, whole or as thumbnails, and nothing else."""

import hashlib
import io
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from fastapi import APIRouter, HTTPException
from fastapi.responses import FileResponse, Response
from PIL import Image

from app.modesty import give_way, step_back
from app.paths import CONCEPTS, Home, absolute
from app.projects import PICTURE_ENDINGS, list_projects
from trainers.data.decoding import Unreadable, decode, read_bytes
from trainers.files import write_whole

SIDES = (160, 320, 640, 1280)  # of thumbnails, in pixels
ASK_AGAIN = {"Cache-Control": "no-cache"}  # at each showing: a picture may have changed under its name
SHOWN_AS_THEY_ARE = (".png", ".jpg", ".jpeg", ".webp")  # what every browser draws

# One at a time, behind everything else: a page of new pictures is turned on at once while they are still made.
_makers = ThreadPoolExecutor(max_workers=1, thread_name_prefix="thumbnails", initializer=step_back)
_keepers = ThreadPoolExecutor(max_workers=1, thread_name_prefix="kept thumbnails", initializer=step_back)


def routes(home: Home) -> APIRouter:
    """`GET /darkroom/picture?path=...&side=...`."""
    router = APIRouter()

    @router.get("/darkroom/picture")
    def picture(path: str, side: int = 0) -> Response:
        file = absolute(path)
        if not may_be_shown(file, home):
            raise HTTPException(404)
        if not side and file.suffix.lower() in SHOWN_AS_THEY_ARE:
            return FileResponse(file, headers=ASK_AGAIN)
        wished = min((one for one in SIDES if one >= side), default=SIDES[-1]) if side else SIDES[-1]
        try:
            return Response(thumbnail(file, wished, home), media_type="image/webp", headers=ASK_AGAIN)
        except Unreadable:  # the page says why; to the browser it is no mistake
            return Response(status_code=204)
        except OSError as error:
            raise HTTPException(404) from error

    return router


def may_be_shown(file: Path, home: Home) -> bool:
    """Whether it is a picture of the home folder, of a folder that a project links, or of the sample concepts."""
    if file.suffix.lower() not in PICTURE_ENDINGS:
        return False
    named = [home.projects, CONCEPTS, *(Path(project.pictures) for project in list_projects(home))]
    places = [*map(absolute, named), *(place.resolve() for place in named)]

    def lies_there(path: Path) -> bool:
        return any(path.is_relative_to(place) for place in places)

    # First by its name alone: on Windows, to look at \\\\host\\picture.png is to sign in at that host.
    # And not by pathlib, which raises where a name is too long.
    return lies_there(file) and os.path.isfile(file) and lies_there(file.resolve())


def thumbnail(file: Path, side: int, home: Home) -> bytes:
    """A WebP of the picture within side x side, upright, made once per state of the file."""
    facts = file.stat()
    key = hashlib.sha256(f"{file} {facts.st_mtime_ns} {facts.st_size} {side}".encode()).hexdigest()[:32]
    kept = home.cache / "thumbnails" / f"{key}.webp"
    with suppress(OSError):  # none yet, or it cannot be read
        return kept.read_bytes()
    made = _makers.submit(_make, file, side).result()
    _keepers.submit(_keep, made, kept)
    return made


def _make(file: Path, side: int) -> bytes:
    give_way()
    picture = decode(read_bytes(file), side)
    picture.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=1.5)
    data = io.BytesIO()
    picture.save(data, "WEBP", quality=82, method=1)  # 2 ms for a small one; the library's own 4 takes 9 ms
    return data.getvalue()


def _keep(made: bytes, place: Path) -> None:
    give_way()
    with suppress(OSError):  # a full disk: it is made again next time
        place.parent.mkdir(parents=True, exist_ok=True)
        write_whole(place, made)
