"""Does the base still draw everything else as before? Prompts without the trigger word, with and without the adapter.

`python -m tests.quality.drift --base DIR --adapter FILE [FILE ...] [--out DIR]` prints one line per adapter.
"""

import argparse
from pathlib import Path

import torch

from tests.quality import renderings
from tests.quality.measure import psnr
from tests.quality.sampling import Sampling, load_pipeline, sample
from tests.quality.sheets import save_sheet

BASE_STYLES = ("noto", "twemoji")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", type=Path, required=True, help="diffusers folder of the base model")
    parser.add_argument("--adapter", type=Path, nargs="+", required=True, help=".safetensors files")
    parser.add_argument("--count", type=int, default=32, help="of the 64 held-out words")
    parser.add_argument("--guidance", type=float, default=4.0)
    parser.add_argument("--out", type=Path, help="folder for contact sheets")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    words = renderings.held_out_words()[: arguments.count]
    prompts = [f"a {BASE_STYLES[i % 2]} style {word}" for i, word in enumerate(words)]
    how = Sampling(guidance=arguments.guidance)
    before = sample(load_pipeline(arguments.base), prompts, how)
    for number, adapter in enumerate((None, *arguments.adapter)):
        after = before if adapter is None else sample(load_pipeline(arguments.base, adapter, how), prompts, how)
        if arguments.out:
            save_sheet(renderings.as_pictures(after), words, arguments.out / f"drift_{number}.png")
        if adapter:
            print(f"{adapter}: {psnr(before, after):.1f} dB to the base's own pictures, mean of {len(words)}")  # noqa: T201


if __name__ == "__main__":
    main()
