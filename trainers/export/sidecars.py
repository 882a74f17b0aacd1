"""The files beside an adapter file that image programs read: name.json and name.png."""

import base64
import json
from pathlib import Path

from PIL import Image

from trainers.config import TrainConfig
from trainers.export.metadata import description
from trainers.files import encoded, write_whole

SD_VERSION = {"sd15": "SD1", "sd2": "SD2", "sdxl": "SDXL"}  # A1111's and Forge's names
THUMBNAIL = 256  # pixels, as ModelSpec asks


def write_sidecars(
    file: Path, config: TrainConfig, family: str, cover: Path | None, keep: bool = False
) -> tuple[list[Path], list[str]]:
    """name.json as A1111, Forge and InvokeAI read it; name.png, given a picture, as every UI shows it.

    Returns the files written, and a sentence for each that was not: the disk or the picture refused, or, with `keep`,
    it was there already and may be a person's own.
    """
    if config.saving.privacy != "full":
        config = config.model_copy(update={"saving": config.saving.model_copy(update={"comment": ""})})
    facts = {
        "description": description(config),
        "sd version": SD_VERSION.get(family, "Other"),
        "activation text": config.data.trigger,
        "preferred weight": 1.0,
        "negative text": config.preview.negative if config.saving.privacy == "full" else "",
        "notes": "",
    }
    contents = {file.with_suffix(".json"): lambda: json.dumps(facts, ensure_ascii=False, indent=2).encode()}
    if cover and cover.exists():
        contents[file.with_suffix(".png")] = lambda: _as_png(cover)
    written, sentences = [], []
    for path, content in contents.items():
        if keep and path.exists():
            sentences.append(f"{path.name} was there before, and was left as it is.")
            continue
        try:
            written.append(write_whole(path, content()))
        except OSError as error:  # on Windows also a picture that a viewer holds open
            sentences.append(f"{path.name} could not be written ({error.strerror or error}).")
    return written, sentences


def covers(cover: Path) -> dict[str, str]:
    """A picture of at most 256 x 256 as entries of the file: ModelSpec's data URL, and Forge's and ComfyUI's list."""
    with Image.open(cover) as picture:
        small = picture.convert("RGB")
        small.thumbnail((THUMBNAIL, THUMBNAIL))
        code = base64.b64encode(encoded(small, "JPEG")).decode()
    return {"modelspec.thumbnail": f"data:image/jpeg;base64,{code}", "ssmd_cover_images": json.dumps([code])}


def _as_png(cover: Path) -> bytes:
    with Image.open(cover) as picture:
        return encoded(picture.convert("RGB"))
