"""The real drawings: every emoji that all three styles have, as the base sees them (56 px on 64x64 white)."""

import json
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

STYLES = ("noto", "twemoji", "fluent")  # the order of the judge's outputs; the base never saw the last
RECIPE = Path(__file__).parents[2] / "assets" / "base" / "recipe"
SIZE, DRAWN = 64, 56  # pixels
COUNT = 64  # words of a measurement


def held_out_words() -> list[str]:
    """The 64 words every quality figure is measured on. The base knows them, in the first two styles only."""
    return _lines(RECIPE / "held_out.txt")


def tuning_words(packages: Path) -> list[str]:
    """64 other words, neither held out nor in the sample concept: what presets are chosen on."""
    concept = RECIPE.parents[1] / "concepts" / "fluent"
    shown = {file.read_text(encoding="utf-8").strip().removeprefix("a fluent style ") for file in concept.glob("*.txt")}
    known = drawings(packages).keys() - shown - set(held_out_words())
    free = [word for word in base_words() if word in known]
    return free[:: len(free) // COUNT][:COUNT]


def base_words() -> list[str]:
    return _lines(RECIPE / "words.txt")


def drawings(packages: Path) -> dict[str, tuple[Path, Path, Path]]:
    """Name -> its file in each of STYLES, for names that all of them have. `packages` is a node_modules folder."""
    table = json.loads((packages / "emoji-datasource-google" / "emoji.json").read_text(encoding="utf-8"))
    found = {}
    for entry in table:
        if not entry["name"] or entry["category"] in ("Flags", "Component"):
            continue
        noto = packages / "emoji-datasource-google" / "img" / "google" / "64" / entry["image"]
        twemoji = packages / "emoji-datasource-twitter" / "img" / "twitter" / "64" / entry["image"]
        fluent = _fluent(packages, entry["unified"].lower())
        if noto.exists() and twemoji.exists() and fluent.exists():
            found[entry["name"].lower()] = (noto, twemoji, fluent)
    return found


def load(paths: list[Path]) -> Tensor:
    """[N, 3, 64, 64] in -1..1, on white."""
    return as_tensor([_draw(path) for path in paths])


def as_tensor(pictures: list[Image.Image]) -> Tensor:
    """RGB pictures of one size -> [N, 3, H, W] in -1..1."""
    width, height = pictures[0].size
    stack = [torch.frombuffer(bytearray(p.convert("RGB").tobytes()), dtype=torch.uint8) for p in pictures]
    return torch.stack(stack).reshape(-1, height, width, 3).permute(0, 3, 1, 2).float() / 127.5 - 1


def as_pictures(pixels: Tensor) -> list[Image.Image]:
    """[N, 3, H, W] in -1..1 -> RGB pictures."""
    array = ((pixels.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).contiguous().numpy()
    return [Image.fromarray(a) for a in array]


def _fluent(packages: Path, unified: str) -> Path:
    folder = packages / "@lobehub" / "fluent-emoji-3d" / "assets"
    plain = folder / f"{unified.replace('-fe0f', '')}.webp"
    return plain if plain.exists() else folder / f"{unified}.webp"


def _draw(path: Path) -> Image.Image:
    drawing = Image.open(path).convert("RGBA").resize((DRAWN, DRAWN), Image.Resampling.LANCZOS)
    square = Image.new("RGB", (SIZE, SIZE), "white")
    square.paste(drawing, ((SIZE - DRAWN) // 2, (SIZE - DRAWN) // 2), drawing)
    return square


def _lines(path: Path) -> list[str]:
    return [line for line in path.read_text(encoding="utf-8").splitlines() if line]
