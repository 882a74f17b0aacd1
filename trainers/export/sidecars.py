"""The files beside an adapter file that image programs read: name.json and name.png."""

import base64
import io
import json
import os
from pathlib import Path

from PIL import Image

from trainers.config import TrainConfig
from trainers.export.metadata import description

SD_VERSION = {"sd15": "SD1", "sd2": "SD2", "sdxl": "SDXL"}  # A1111's and Forge's names
THUMBNAIL = 256  # pixels, as ModelSpec asks


def write_sidecars(
    file: Path, config: TrainConfig, family: str, cover: Path | None, keep: bool = False
) -> tuple[list[Path], list[Path]]:
    """name.json as A1111, Forge and InvokeAI read it; name.png, given a picture, as every UI shows it.

    Returns (written, left as they were): with `keep`, files that are there already may be a person's own.
    """
    facts = {
        "description": description(config),
        "sd version": SD_VERSION.get(family, "Other"),
        "activation text": config.data.trigger,
        "preferred weight": 1.0,
        "negative text": config.preview.negative,
        "notes": "",
    }
    wanted = {file.with_suffix(".json"): json.dumps(facts, ensure_ascii=False, indent=2).encode()}
    if cover and cover.exists():
        with Image.open(cover) as picture:
            wanted[file.with_suffix(".png")] = _encoded(picture.convert("RGB"), "PNG")
    kept = [path for path in wanted if keep and path.exists()]
    return [_write(path, content) for path, content in wanted.items() if path not in kept], kept


def thumbnail(cover: Path) -> str:
    """A picture as a data URL of at most 256 x 256, for `modelspec.thumbnail`."""
    with Image.open(cover) as picture:
        small = picture.convert("RGB")
        small.thumbnail((THUMBNAIL, THUMBNAIL))
        return "data:image/jpeg;base64," + base64.b64encode(_encoded(small, "JPEG")).decode()


def _encoded(picture: Image.Image, form: str) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, form)
    return buffer.getvalue()


def _write(path: Path, content: bytes) -> Path:
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
    return path
