"""Sample pictures from the resident model: while it trains, and for `darkroom sample`."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from trainers import devices
from trainers.config import PreviewConfig, TrainConfig
from trainers.data.types import Crop
from trainers.events import Adjusted
from trainers.families.base import Components, Conditioning, Family, plain_sizes
from trainers.families.residence import lent
from trainers.files import encoded, write_whole
from trainers.libraries import diffusers
from trainers.memory.tiles import tiled
from trainers.stores import encode_texts

# Pictures denoised in one batch, each with its two rows of guidance. Counted on Stable Diffusion 1.5 at 512 pixels,
# eight rows without gradients hold 0.51 GB at once, and a step of batch 1 0.75 GB; with checkpointing 0.22 GB, and
# then one picture's two rows 0.13 GB.
TOGETHER = 4


def at_once(trained: int, checkpointing: bool, larger: float = 1.0) -> int:
    """How many pictures can be denoised together within the memory that training so many at once takes.

    At least one, which may take more: `larger` is how many times as many pixels it has as those that are trained on.
    """
    together = trained if checkpointing else max(TOGETHER, trained)
    return max(1, int(together / max(1.0, larger)))


def larger(config: PreviewConfig, drawn: int, trained: int) -> float:
    """How many times as many pixels a preview has as a picture that is trained on; each a side, unless it is set."""
    return (config.width or drawn) * (config.height or drawn) / trained**2


def bounded(config: TrainConfig, components: Components) -> tuple[TrainConfig, Adjusted | None]:
    """The settings with previews that are no larger than the base can draw, and what is told where they were."""
    _, most = components.bounds
    sides = {"width": config.preview.width, "height": config.preview.height}
    within = {name: min(side, most) for name, side in sides.items() if most and side and side > most}
    if not within:
        return config, None
    told = Adjusted(f"Previews have at most {most} pixels a side", "The base draws no larger pictures.")
    return config.model_copy(update={"preview": config.preview.model_copy(update=within)}), told


def longest(config: PreviewConfig, resolution: int, crops: Sequence[Crop] = ()) -> int:
    """The longest side in pixels of all that is drawn, and of the pictures of these crops."""
    sides = (side for crop in crops for side in (crop.bucket.width, crop.bucket.height))
    return max(resolution, config.width or 0, config.height or 0, *sides)


@torch.no_grad()
def sample(
    family: Family,
    components: Components,
    prompts: list[str],
    config: PreviewConfig,
    clip_skip: int,
    device: torch.device,
    resolution: int,
) -> list[Image.Image]:
    """One picture per prompt, each from its own fixed seed; puts every module back as it was."""
    told = encode_texts(family, components, [*prompts, config.negative], clip_skip, device)
    return sample_told(family, components, told, config, device, resolution)


@torch.no_grad()
def sample_told(
    family: Family,
    components: Components,
    told: Conditioning,
    config: PreviewConfig,
    device: torch.device,
    resolution: int,
    together: int = TOGETHER,
    space: float = math.inf,
    stepped: Callable[[int, int], None] = lambda done, total: None,
) -> list[Image.Image]:
    """`sample` of encoded prompts: `told` has one row for each, and the negative prompt's as the last.

    So many are denoised `together`. They are decoded one by one, within `space` bytes with the VAE's weights.
    `stepped` is told of each sampling step: (done, in all), a batch's counted for each of its pictures.
    """
    denoiser, vae, latent = components.denoiser, components.vae, components.latent
    width, height = components.side(config.width or resolution), components.side(config.height or resolution)
    count = len(told.embeds) - 1
    dtype = next(denoiser.parameters()).dtype  # the base's: a layer of its own comes before what an adapter adds
    shape = (1, latent.channels, height, width)
    generators = [torch.Generator().manual_seed((config.seed + i) % 2**63) for i in range(count)]
    noise = [torch.randn(shape, generator=generator) for generator in generators]
    drawn: list[Tensor] = []
    steps = config.sampling_steps
    devices.hand_back()  # on a CPU: what the work before has left comes in pieces that do not fit what follows
    with lent([denoiser], device):
        for start in range(0, count, together):
            some = torch.cat(noise[start : start + together]).to(device)
            rows = [*[count] * len(some), *range(start, start + len(some))]
            sizes = plain_sizes(family, width * latent.factor, height * latent.factor, len(rows), device)
            both = told.rows(torch.tensor(rows, device=device)).to(dtype).sized(sizes)
            size, before = len(some), start * steps
            after = lambda done, size=size, before=before: stepped(before + size * done, count * steps)  # noqa: E731
            drawn += draw(family, components, some, both, config, after).split(1)
    space -= sum(weight.numel() * weight.element_size() for weight in vae.parameters())
    pictures = []
    with lent([vae], device), tiled(family, vae, shape, space):
        for one in drawn:
            devices.hand_back()
            pictures.append(_to_image(family.decode_image(vae, one.to(next(vae.parameters()).dtype))[0].float()))
    return pictures


@torch.no_grad()
def draw(
    family: Family,
    components: Components,
    noise: Tensor,
    conditioning: Conditioning,
    config: PreviewConfig,
    stepped: Callable[[int], None] = lambda done: None,
) -> Tensor:
    """Noise [B, C, h, w] -> clean scaled latents [B, C, h, w], fp32.

    Classifier-free guidance over the base's own noise levels and prediction type.
    `conditioning` has 2 B rows in the compute dtype: the negative prompts, then the prompts. `stepped` is told how many
    sampling steps are done, after each.
    """
    scheduler = build_sampler(components.scheduler)
    scheduler.set_timesteps(config.sampling_steps, device=noise.device)
    latents = noise
    for done, t in enumerate(scheduler.timesteps, start=1):
        pair = torch.cat([latents, latents]).to(conditioning.embeds.dtype)
        empty, prompted = family.denoise(components.denoiser, pair, t.expand(len(pair)), conditioning).float().chunk(2)
        guided = empty + config.guidance * (prompted - empty)
        latents = scheduler.step(guided, t, latents).prev_sample
        stepped(min(done, config.sampling_steps))
    return latents


def build_sampler(scheduler: dict) -> diffusers.DDIMScheduler | diffusers.FlowMatchEulerDiscreteScheduler:
    """Euler's method for a flow; else DDIM with the base's own betas and prediction type [Song et al. 2020]."""
    if scheduler.get("prediction_type") == "flow":
        return diffusers.FlowMatchEulerDiscreteScheduler(shift=scheduler.get("shift", 1.0))
    options = {"clip_sample": False}
    if scheduler.get("rescale_betas_zero_snr"):
        options["timestep_spacing"] = "trailing"  # such a base is asked about pure noise first
    return diffusers.DDIMScheduler.from_config(scheduler, **options)


def _to_image(pixel: Tensor) -> Image.Image:
    """[3, H, W] in -1..1 -> RGB picture."""
    array = ((pixel.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).cpu().numpy()
    return Image.fromarray(array)


def save_asked(picture: Image.Image, folder: Path, step: int) -> Path:
    """Write a picture that a person asked for, asked_000250_0.png and so on: no column of the previews, no cover."""
    folder.mkdir(parents=True, exist_ok=True)
    number = sum(1 for _ in folder.glob(f"asked_{step:06d}_*.png"))
    return write_whole(folder / f"asked_{step:06d}_{number}.png", encoded(picture))


def save_picture(picture: Image.Image, folder: Path, step: int, number: int) -> Path:
    """Write a preview, step_000250_0.png and so on, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    return write_whole(folder / f"step_{step:06d}_{number}.png", encoded(picture))


def is_due(config: PreviewConfig, step: int, steps: int) -> bool:
    """Whether a run of so many steps draws previews after that one: every so many, and after the last."""
    return bool(config.every) and (step % config.every == 0 or step == steps)


def is_drawn(folder: Path, step: int, count: int) -> bool:
    """Whether so many previews of that step are there."""
    return sum(1 for _ in folder.glob(f"step_{step:06d}_*.png")) >= count
