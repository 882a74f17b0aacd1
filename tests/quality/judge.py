"""A small classifier that tells three drawing styles apart, so that "it learned the style" is a number.

It learns from real drawings of about 1,500 names, none of them held out. The pictures are scaled, shifted, mirrored,
blurred and made noisy, so that it must look at how things are shaded and outlined and not at pixel sharpness or size;
it never sees the output of any model.

`python -m tests.quality.judge --packages DIR [--out FILE] [--base DIR]` trains one and says how good it is.
"""

import argparse
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.quality import renderings

STEPS, BATCH = 2400, 48
FEATURES = 128


class Judge(nn.Module):
    """Pictures [N, 3, 64, 64] in -1..1 -> logits [N, 3] in the order of renderings.STYLES."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 24, 48, 96, FEATURES)
        blocks = [_block(a, b) for a, b in zip(widths, widths[1:], strict=False)]
        self.body = nn.Sequential(*blocks)
        self.head = nn.Linear(FEATURES, len(renderings.STYLES))

    def features(self, pictures: Tensor) -> Tensor:
        """Penultimate layer, [N, 128]: what the style decision is made from."""
        return self.body(pictures).mean(dim=(2, 3))

    def forward(self, pictures: Tensor) -> Tensor:
        return self.head(F.dropout(self.features(pictures), 0.2, self.training))

    @torch.no_grad()
    def style_probability(self, pictures: Tensor) -> Tensor:
        """[N, 3] probabilities, in the order of renderings.STYLES, for pictures [N, 3, 64, 64] in -1..1."""
        self.eval()
        return torch.cat([self(chunk).softmax(1) for chunk in pictures.split(64)])


def trained_judge(packages: Path, file: Path) -> Judge:
    """The judge kept in `file`, trained and put there first if there is none."""
    judge = Judge()
    if file.exists():
        judge.load_state_dict(torch.load(file, weights_only=True))
    else:
        judge = train(packages)
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.save(judge.state_dict(), file)
    return judge.eval()


def train(packages: Path, steps: int = STEPS) -> Judge:
    """Three to six minutes on one CPU thread; the same weights every time on the same machine."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    pictures, styles = training_pictures(packages)
    judge = Judge().to(memory_format=torch.channels_last)  # 1.6 times as fast on a CPU
    optimizer = torch.optim.AdamW(judge.parameters(), lr=4e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    judge.train()
    pictures = pictures.contiguous(memory_format=torch.channels_last)
    for _ in range(steps):
        pick = torch.randint(len(pictures), (BATCH,), generator=generator)
        loss = F.cross_entropy(judge(varied(pictures[pick], generator)), styles[pick], label_smoothing=0.02)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return judge.eval()


def training_pictures(packages: Path) -> tuple[Tensor, Tensor]:
    """Pictures [N, 3, 64, 64] and style numbers [N] of every name that is not held out."""
    held_out = set(renderings.held_out_words())
    files = [paths for name, paths in renderings.drawings(packages).items() if name not in held_out]
    pictures = renderings.load([path for paths in files for path in paths])
    return pictures, torch.arange(len(renderings.STYLES)).repeat(len(files))


def varied(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Per picture: mirror, scale 0.85..1.1, shift up to 5 px; blur of up to 1 px; slight noise."""
    n = len(pictures)

    def rand(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    scale = 1 / (0.85 + 0.25 * rand(n))
    mirror = torch.where(rand(n) < 0.5, -1.0, 1.0)
    shift = (rand(n, 2) * 2 - 1) * 5 / 32
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1], theta[:, :, 2] = scale * mirror, scale, shift
    grid = F.affine_grid(theta, list(pictures.shape), align_corners=False)
    pictures = F.grid_sample(pictures - 1, grid, align_corners=False) + 1  # white, not grey, beyond the edge
    pictures = pictures.lerp(_blurred(pictures), rand(n, 1, 1, 1))
    noise = torch.randn(pictures.shape, generator=generator)
    return (pictures + 0.06 * rand(n, 1, 1, 1) * noise).clamp(-1, 1)


def _blurred(pictures: Tensor) -> Tensor:
    """A 5x5 binomial blur, about 1 px of standard deviation."""
    line = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
    kernel = (line[:, None] * line).expand(3, 1, 5, 5)
    return F.conv2d(F.pad(pictures, (2, 2, 2, 2), mode="replicate"), kernel, groups=3)


def _block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, stride=2),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
        nn.Conv2d(outputs, outputs, 3, padding=1),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


def report(judge: Judge, packages: Path, through: nn.Module | None = None) -> dict[str, float]:
    """On the held-out words: accuracy over the three styles, and mean probability of fluent for fluent drawings.

    `through` is a VAE; with one, the same again for pictures that went through it.
    """
    files = renderings.drawings(packages)
    real = [renderings.load([files[word][i] for word in renderings.held_out_words()]) for i in range(3)]
    figures = _figures(judge, real, "")
    if through is not None:
        figures |= _figures(judge, [reconstructed(through, pictures) for pictures in real], "_vae")
    return figures


@torch.no_grad()
def reconstructed(vae: nn.Module, pictures: Tensor) -> Tensor:
    """Pictures [N, 3, H, W] in -1..1 encoded (posterior mean) and decoded again."""
    return torch.cat([vae.decode(vae.encode(chunk).latent_dist.mean).sample for chunk in pictures.split(16)]).clamp(
        -1, 1
    )


def _figures(judge: Judge, real: list[Tensor], suffix: str) -> dict[str, float]:
    probabilities = [judge.style_probability(pictures) for pictures in real]
    right = torch.cat([p.argmax(1) == i for i, p in enumerate(probabilities)])
    return {
        f"accuracy{suffix}": right.float().mean().item(),
        f"fluent_probability{suffix}": probabilities[2][:, 2].mean().item(),
        f"fluent_probability_of_noto{suffix}": probabilities[0][:, 2].mean().item(),
        f"fluent_probability_of_twemoji{suffix}": probabilities[1][:, 2].mean().item(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--packages", type=Path, required=True, help="node_modules folder with the three emoji packages"
    )
    parser.add_argument("--out", type=Path, default=Path("judge.pt"))
    parser.add_argument("--base", type=Path, help="a diffusers folder, to judge pictures through its VAE as well")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    start = time.monotonic()
    judge = trained_judge(arguments.packages, arguments.out)
    vae = None
    if arguments.base:
        from diffusers import AutoencoderKL  # noqa: PLC0415 - heavy, and only needed with --base

        vae = AutoencoderKL.from_pretrained(arguments.base / "vae").eval()
    for name, value in report(judge, arguments.packages, vae).items():
        print(f"{name:34} {value:.3f}")  # noqa: T201 - a command-line tool
    print(f"{'seconds':34} {time.monotonic() - start:.0f}")  # noqa: T201


if __name__ == "__main__":
    main()
