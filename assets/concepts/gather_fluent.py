"""Rebuild the `fluent` concept: 40 Fluent Emoji on white at 128 px with captions 'a fluent style NAME'.

`python assets/concepts/gather_fluent.py PACKAGES`, where PACKAGES is a node_modules folder that holds
emoji-datasource-google (names) and @lobehub/fluent-emoji-3d (pictures).
"""

import json
import sys
from pathlib import Path

from PIL import Image

HERE = Path(__file__).parent
RECIPE = HERE.parent / "base" / "recipe"
SIZE = 128  # pixels: twice the base's side, so that training resizes as it does for a user's pictures
DRAWN = 112  # pixels the drawing fills: the base's own margin, doubled
COUNT = 40


def chosen_words() -> list[str]:
    """40 of the base's words, spread over all kinds of things; none of those kept aside for measuring."""
    held_out = set(_lines(RECIPE / "held_out.txt"))
    rest = [word for word in _lines(RECIPE / "words.txt") if word not in held_out]
    stride = len(rest) / COUNT
    return [rest[int((i + 0.5) * stride)] for i in range(COUNT)]


def gather(packages: Path, folder: Path) -> None:
    """Write NAME.png and NAME.txt for every chosen word."""
    folder.mkdir(parents=True, exist_ok=True)
    table = json.loads((packages / "emoji-datasource-google" / "emoji.json").read_text(encoding="utf-8"))
    code_points = {entry["name"].lower(): entry["unified"].lower() for entry in table if entry["name"]}
    for word in chosen_words():
        file_name = word.replace(" ", "-")
        _draw(_source(packages, code_points[word])).save(folder / f"{file_name}.png", optimize=True)
        (folder / f"{file_name}.txt").write_text(f"a fluent style {word}\n", encoding="utf-8")


def _source(packages: Path, unified: str) -> Path:
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


if __name__ == "__main__":
    gather(Path(sys.argv[1]), HERE / "fluent")
