"""Emoji pictures and captions as tensors, from the two npm packages the base learns from."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

HERE = Path(__file__).parent
SIZE = 64  # pixels, the base's native resolution
DRAWN = 56  # pixels the drawing fills, leaving a 4-pixel margin
STYLES = {"noto": ("emoji-datasource-google", "google"), "twemoji": ("emoji-datasource-twitter", "twitter")}


@dataclass(frozen=True)
class Picture:
    caption: str
    style: str
    name: str
    category: str
    path: Path


def words() -> list[str]:
    """The names the denoiser learns, one per line of words.txt."""
    return [w for w in (HERE / "words.txt").read_text(encoding="utf-8").splitlines() if w]


def emoji_table(packages: Path) -> list[dict]:
    """Every emoji of the dataset: name in lower case, category and file name."""
    table = json.loads((packages / "emoji-datasource-google" / "emoji.json").read_text(encoding="utf-8"))
    for entry in table:
        entry["name"] = (entry["name"] or entry["short_name"]).lower()
    return sorted(table, key=lambda entry: entry["sort_order"])


def pictures(packages: Path) -> list[Picture]:
    """All emoji in both styles, flags and components left out."""
    found = []
    for entry in emoji_table(packages):
        if entry["category"] in ("Flags", "Component"):
            continue
        for style, (package, folder) in STYLES.items():
            path = packages / package / "img" / folder / "64" / entry["image"]
            if path.exists():
                caption = f"a {style} style {entry['name']}"
                found.append(Picture(caption, style, entry["name"], entry["category"], path))
    return found


def draw(path: Path) -> Image.Image:
    """The emoji as RGBA, 56 pixels wide, centred on a transparent 64x64 square."""
    drawing = Image.open(path).convert("RGBA").resize((DRAWN, DRAWN), Image.Resampling.LANCZOS)
    square = Image.new("RGBA", (SIZE, SIZE))
    square.paste(drawing, ((SIZE - DRAWN) // 2, (SIZE - DRAWN) // 2))
    return square


def load(paths: list[Path]) -> Tensor:
    """[N, 4, 64, 64] RGBA in 0..1, straight alpha."""
    stack = [torch.frombuffer(bytearray(draw(p).tobytes()), dtype=torch.uint8) for p in paths]
    return torch.stack(stack).reshape(-1, SIZE, SIZE, 4).permute(0, 3, 1, 2).float() / 255


def flatten(rgba: Tensor, background: Tensor | float = 1.0) -> Tensor:
    """Lay RGBA [N, 4, H, W] over a background; returns RGB in -1..1."""
    alpha = rgba[:, 3:]
    return (rgba[:, :3] * alpha + background * (1 - alpha)) * 2 - 1


def varied(rgba: Tensor, generator: torch.Generator) -> Tensor:
    """Augmentation for the VAE: it must carry colours and shading that its pictures do not show.

    Flips, shifts, channel permutations, a smooth random light, coarse or finer (stand-in for 3-D shading and
    highlights), and now and then a coloured background. RGBA [N, 4, 64, 64] in, RGB in -1..1 out.
    """
    n = len(rgba)

    def rand(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    shift = torch.randint(-8, 9, (2,), generator=generator).tolist()
    rgba = rgba.roll(shift, dims=(2, 3))
    if rand(1) < 0.5:
        rgba = rgba.flip(3)
    colour = rgba[:, torch.randperm(3, generator=generator)]
    coarse = int(torch.randint(3, 9, (1,), generator=generator))
    light = F.interpolate(rand(n, 3, coarse, coarse), size=(SIZE, SIZE), mode="bicubic", align_corners=True)
    strength = 0.8 * rand(n, 1, 1, 1) * (rand(n, 1, 1, 1) < 0.6)
    colour = (colour + strength * (light - 0.5)).clamp(0, 1)
    plain = torch.where(rand(n, 1, 1, 1) < 0.7, torch.ones(n, 3, 1, 1), rand(n, 3, 1, 1))
    return flatten(torch.cat([colour, rgba[:, 3:]], dim=1), plain)
