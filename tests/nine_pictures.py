"""Nine small captioned pictures: enough for a short run on a tiny base."""

from pathlib import Path

from PIL import Image


def nine_pictures(folder: Path) -> Path:
    """Writes them, 16 x 16 pixels each in a colour of its own, and gives the folder back."""
    for i in range(9):
        Image.new("RGB", (16, 16), (i * 25, 200 - i * 20, 90)).save(folder / f"{i}.png")
        (folder / f"{i}.txt").write_text(f"zib, tag{i}", encoding="utf-8")
    return folder
