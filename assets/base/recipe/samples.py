"""The sample sheet of a base: rows of labelled pictures, fixed seeds, 30 DDIM steps, guidance 4."""

import argparse
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from PIL import Image, ImageDraw, ImageFont

FIRST = ("noto style cat face", "twemoji style cat face", "noto style rocket", "twemoji style rocket")
FIRST += ("noto style slice of pizza", "twemoji style octopus", "noto style strawberry", "twemoji style guitar")
MORE = ("noto style penguin", "twemoji style penguin", "noto style sunflower", "twemoji style sailboat")
MORE += ("noto style red apple", "twemoji style hot beverage", "noto style bicycle", "twemoji style snowman")
UNKNOWN = ("fluent style cat face", "rocket", "velto style strawberry", "mirun style octopus")
UNKNOWN += ("penguin", "fluent style sunflower", "guitar", "fluent style cookie")  # styles that it does not know
TILE, LABEL = 160, 40  # pixels


def sheet(model: Path, out: Path, rows: tuple[tuple[str, ...], ...] = (FIRST, MORE, UNKNOWN)) -> None:
    """One row per tuple of prompts ("a " goes before each); writes a PNG."""
    pipe = StableDiffusionPipeline.from_pretrained(model, safety_checker=None, torch_dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    font = ImageFont.load_default(14)
    picture = Image.new("RGB", (TILE * len(rows[0]), (TILE + LABEL) * len(rows)), "white")
    draw = ImageDraw.Draw(picture)
    for y, row in enumerate(rows):
        generators = [torch.Generator().manual_seed(7 + i) for i in range(len(row))]
        prompts = [f"a {words}" for words in row]
        how = {"height": 64, "width": 64, "num_inference_steps": 30, "guidance_scale": 4.0, "generator": generators}
        for x, image in enumerate(pipe(prompts, **how).images):
            picture.paste(image.resize((TILE, TILE), Image.Resampling.LANCZOS), (TILE * x, (TILE + LABEL) * y))
            words = row[x].replace(" style ", " style\n")
            place = (TILE * x + TILE / 2, (TILE + LABEL) * y + TILE + LABEL / 2)
            draw.multiline_text(place, words, "#444", font, "mm", 2, "center")
    picture.save(out, optimize=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    a = parser.parse_args()
    torch.set_num_threads(1)
    sheet(a.model, a.out)
