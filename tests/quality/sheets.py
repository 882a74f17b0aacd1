"""Labelled contact sheets."""

from pathlib import Path

from PIL import Image, ImageDraw

CELL, LABEL = 128, 16  # pixels: a 64 px picture twice as large, and the line under it


def save_sheet(pictures: list[Image.Image], labels: list[str], path: Path, *, columns: int = 8) -> None:
    """Pictures in rows of `columns`, each with its label underneath."""
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * CELL, rows * (CELL + LABEL)), "white")
    pen = ImageDraw.Draw(sheet)
    for i, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
        x, y = i % columns * CELL, i // columns * (CELL + LABEL)
        sheet.paste(picture.resize((CELL, CELL), Image.Resampling.BICUBIC), (x, y))
        pen.text((x + CELL / 2, y + CELL + 2), label[:22], fill="black", anchor="ma")
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)
