"""Did the adapter learn the style, and does it still draw the right thing? On 64 words it never saw in that style.

`python -m tests.quality.measure --base DIR --packages DIR [--adapter FILE] [--out DIR] [--json]`
"""

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from tests.quality import renderings
from tests.quality.judge import Judge, reconstructed, trained_judge
from tests.quality.likeness import likeness
from tests.quality.sampling import Sampling, load_pipeline, sample
from tests.quality.sheets import save_sheet

PER_SHEET = 32


@dataclass(frozen=True)
class Quality:
    """Probabilities are means over the 64 held-out words; shares lie in 0..1."""

    style_probability: float  # of fluent, for samples of "a fluent style WORD"
    ceiling: float  # the same for real fluent drawings after the base's VAE: the best any adapter can reach
    ratio: float  # style_probability / ceiling
    real: float  # the same for real fluent drawings as they are
    noto: float  # what else the samples look like
    twemoji: float
    top1: float  # the true drawing of the word is the nearest of the 64
    top5: float  # ... is among the 5 nearest
    top5_ceiling: float  # the same for real fluent drawings after the VAE
    vae_psnr: float  # dB, real fluent drawings through the VAE; mean over the pictures
    seed: int


def measure(
    base: Path, packages: Path, judge: Judge, adapter: Path | None, how: Sampling, words: list[str], style: str
) -> tuple[Quality, Tensor]:
    """The figures, and the samples [N, 3, 64, 64] in the order of the N words."""
    files = renderings.drawings(packages)
    number = renderings.STYLES.index(style)
    truth = renderings.load([files[word][number] for word in words])
    pipeline = load_pipeline(base, adapter, how)
    through = reconstructed(pipeline.vae, truth.to(how.device)).cpu()
    samples = sample(pipeline, [f"a {style} style {word}" for word in words], how)
    looks = judge.style_probability(samples).mean(0).tolist()
    ceiling = judge.style_probability(through)[:, number].mean().item()
    right = likeness(samples, truth)
    quality = Quality(
        style_probability=looks[number],
        ceiling=ceiling,
        ratio=looks[number] / ceiling,
        real=judge.style_probability(truth)[:, number].mean().item(),
        noto=looks[0],
        twemoji=looks[1],
        top1=right.top(1),
        top5=right.top(5),
        top5_ceiling=likeness(through, truth).top(5),
        vae_psnr=psnr(through, truth),
        seed=how.seed,
    )
    return quality, samples


def psnr(a: Tensor, b: Tensor) -> float:
    """Mean over pictures of the peak signal-to-noise ratio, dB; pixels in -1..1."""
    error = (a - b).pow(2).flatten(1).mean(1)
    return (10 * torch.log10(4 / error)).mean().item()


def save_samples(samples: Tensor, words: list[str], folder: Path) -> None:
    """Contact sheets of 32 labelled samples."""
    pictures = renderings.as_pictures(samples)
    for start in range(0, len(words), PER_SHEET):
        end = start + PER_SHEET
        save_sheet(pictures[start:end], words[start:end], folder / f"samples_{start // PER_SHEET}.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", type=Path, required=True, help="diffusers folder of the base model")
    parser.add_argument(
        "--packages", type=Path, required=True, help="node_modules folder with the three emoji packages"
    )
    parser.add_argument("--adapter", type=Path, help=".safetensors file")
    parser.add_argument("--strength", type=float, default=1.0)
    parser.add_argument("--style", choices=renderings.STYLES, default="fluent")
    parser.add_argument(
        "--words", choices=("held-out", "tuning"), default="held-out", help="tuning: to choose settings"
    )
    parser.add_argument("--judge", type=Path, default=Path("build/judge.pt"), help="trained and kept there if missing")
    parser.add_argument("--out", type=Path, help="folder for the contact sheets and quality.json")
    parser.add_argument("--seed", type=int, nargs="+", default=[0], help="several give one line each")
    parser.add_argument("--guidance", type=float, default=4.0)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    judge = trained_judge(arguments.packages, arguments.judge)
    tuning = arguments.words == "tuning"
    words = renderings.tuning_words(arguments.packages) if tuning else renderings.held_out_words()
    rows = []
    for seed in arguments.seed:
        how = Sampling(arguments.steps, arguments.guidance, seed, strength=arguments.strength, device=arguments.device)
        paths = (arguments.base, arguments.packages)
        quality, samples = measure(*paths, judge, arguments.adapter, how, words, arguments.style)
        rows.append(asdict(quality))
        if arguments.out:
            save_samples(samples, words, arguments.out / f"seed_{seed}")
    if arguments.out:
        (arguments.out / "quality.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    for row in rows:
        text = json.dumps(row) if arguments.json else "  ".join(f"{k} {v:.3f}" for k, v in row.items())
        print(text)  # noqa: T201 - a command-line tool


if __name__ == "__main__":
    main()
