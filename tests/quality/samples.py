"""A sheet of what a base (with or without an adapter) draws: words x styles, or free prompts.

`python -m tests.quality.samples --base DIR --out sheet.png [--words cat "slice of pizza"] [--styles noto twemoji]`
`python -m tests.quality.samples --base DIR --out sheet.png --prompts "zibbo waving" "a noto style cat"`
"""

import argparse
from pathlib import Path

import torch

from tests.quality import renderings
from tests.quality.sampling import Sampling, load_pipeline, sample
from tests.quality.sheets import save_sheet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--adapter", type=Path)
    parser.add_argument("--strength", type=float, default=1.0)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--words", nargs="+", help="default: every eighth word of the base")
    parser.add_argument("--styles", nargs="+", default=["noto", "twemoji"])
    parser.add_argument("--prompts", nargs="+", help="instead of words and styles")
    parser.add_argument("--copies", type=int, default=1, help="pictures per prompt, each from other noise")
    parser.add_argument("--columns", type=int, default=8)
    parser.add_argument("--guidance", type=float, default=4.0)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    words = arguments.words or renderings.base_words()[::8]
    prompts = arguments.prompts or [f"a {style} style {word}" for word in words for style in arguments.styles]
    prompts = [prompt for prompt in prompts for _ in range(arguments.copies)]
    how = Sampling(
        arguments.steps, arguments.guidance, arguments.seed, strength=arguments.strength, device=arguments.device
    )
    pictures = sample(load_pipeline(arguments.base, arguments.adapter, how), prompts, how)
    labels = [prompt.replace(" style ", ": ").removeprefix("a ") for prompt in prompts]
    save_sheet(renderings.as_pictures(pictures), labels, arguments.out, columns=arguments.columns)


if __name__ == "__main__":
    main()
