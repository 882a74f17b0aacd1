"""The before/after picture: rows of pictures with the prompt above each column and a name beside each row."""

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

GAP, MARGIN = 12, 24
BACKGROUND, INK, QUIET = "white", "#1b1f24", "#5b6570"
SMALLEST_COLUMN = 150  # narrower, and a prompt cannot be read above it
FONT_SIZE = 20


def before_after(
    rows: Sequence[Sequence[Image.Image]],
    row_labels: Sequence[str],
    column_labels: Sequence[str],
    scale: int = 3,
    title: str = "",
) -> Image.Image:
    """Rows of equally many pictures, enlarged `scale` times, under wrapped column labels."""
    font = ImageFont.load_default(FONT_SIZE)  # PIL's bundled Aileron: there on every machine
    heading = ImageFont.load_default(FONT_SIZE + 8)
    tiles = [[_enlarged(picture, scale) for picture in row] for row in rows]
    width = max(SMALLEST_COLUMN, *(tile.width for row in tiles for tile in row))
    heights = [max(tile.height for tile in row) for row in tiles]
    labels = [wrap(label, font, width) for label in column_labels]
    names = [wrap(label, font, 170) for label in row_labels]
    line = FONT_SIZE + 6
    left = MARGIN + max(round(font.getlength(part)) for name in names for part in name.split("\n")) + 2 * GAP
    top = MARGIN + (line + 22 if title else 0)
    pictures_top = top + line * max(label.count("\n") + 1 for label in labels) + GAP
    size = (
        left + len(labels) * (width + GAP) - GAP + MARGIN,
        pictures_top + sum(heights) + GAP * (len(rows) - 1) + MARGIN,
    )
    sheet = Image.new("RGB", size, BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    if title:
        draw.text((MARGIN, MARGIN), title, INK, heading)
    for i, label in enumerate(labels):
        middle = left + i * (width + GAP) + width / 2
        draw.multiline_text((middle, pictures_top - GAP), label, QUIET, font, "md", 6, "center")
    y = pictures_top
    for row, name, height in zip(tiles, names, heights, strict=True):
        draw.multiline_text((MARGIN, y + height / 2), name, INK, font, "lm", 6)
        for i, tile in enumerate(row):
            sheet.paste(tile, (left + i * (width + GAP) + (width - tile.width) // 2, y))
        y += height + GAP
    return sheet


def wrap(text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    """Break a text at spaces so that each line is at most `width` pixels wide; longer words stay whole."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return "\n".join(lines)


def _enlarged(picture: Image.Image, scale: int) -> Image.Image:
    size = (picture.width * scale, picture.height * scale)
    return picture.convert("RGB").resize(size, Image.Resampling.LANCZOS)
