"""Previews are drawn within the memory that training takes: counted in the true shapes, without weights."""

from collections.abc import Callable

import pytest
import torch

from trainers import preview
from trainers.config import PreviewConfig
from trainers.families.base import Conditioning
from trainers.families.loading import CONFIGS
from trainers.families.parts import UNET
from trainers.families.read_sd import bundled
from trainers.families.sd15 import SD15
from trainers.memory.meter import Meter

SIDE = 32  # latents of 256 pixels


@pytest.fixture(scope="module")
def unet() -> torch.nn.Module:
    """Stable Diffusion 1.5's, in bf16, frozen, on the meta device."""
    settings = bundled(SD15.source.layout, CONFIGS / "sd15", SD15.source.padding)
    with torch.device("meta"):
        return torch.nn.Module.to(UNET.make(settings.configs["unet"]), torch.bfloat16).requires_grad_(False)


def peak(act: Callable[[], object]) -> int:
    with Meter() as meter:
        act()
    return meter.peak


def predict(unet: torch.nn.Module, rows: int, trained: bool) -> torch.Tensor:
    noisy = torch.empty(rows, 4, SIDE, SIDE, device="meta", dtype=torch.bfloat16, requires_grad=trained)
    told = Conditioning(torch.empty(rows, 77, 768, device="meta", dtype=torch.bfloat16))
    return SD15.denoise(unet, noisy, torch.zeros(rows, device="meta", dtype=torch.long), told)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("batch_size", [1, 2])
def test_previews_stay_within_the_memory_of_a_step(unet, checkpointing, batch_size):
    unet.train()
    if checkpointing:
        unet.enable_gradient_checkpointing()
    step = peak(lambda: predict(unet, batch_size, trained=True).float().pow(2).mean().backward())
    unet.disable_gradient_checkpointing()
    unet.eval()
    with torch.no_grad():
        drawing = peak(lambda: predict(unet, 2 * preview.at_once(batch_size, checkpointing), trained=False))
    assert drawing < step


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize(("batch_size", "width"), [(1, 512), (2, 512), (4, 384)])
def test_larger_previews_are_drawn_fewer_at_a_time(checkpointing, batch_size, width):
    """Within the memory of a step, but where one picture alone takes more."""
    settings = PreviewConfig(width=width, height=512)
    together = preview.at_once(batch_size, checkpointing, preview.larger(settings, 8 * SIDE, 8 * SIDE))
    pixels = together * width * 512 / (8 * SIDE) ** 2
    assert together == 1 or pixels <= preview.at_once(batch_size, checkpointing)
    assert preview.larger(PreviewConfig(), 8 * SIDE, 8 * SIDE) == 1
