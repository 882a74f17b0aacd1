"""Pictures from a base folder with or without an adapter, drawn by diffusers' own pipeline and not by our code."""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tests.quality import renderings


@dataclass(frozen=True)
class Sampling:
    steps: int = 25  # DDIM
    guidance: float = 4.0
    seed: int = 0
    batch: int = 16
    strength: float = 1.0  # of the adapter
    device: str = "cpu"


def load_pipeline(base: Path, adapter: Path | None = None, how: Sampling = Sampling()) -> Any:  # noqa: B008 - frozen
    """A StableDiffusionPipeline in fp32 with DDIM, the adapter attached by `load_lora_weights`."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline  # noqa: PLC0415 - heavy

    pipeline = StableDiffusionPipeline.from_pretrained(base, dtype=torch.float32)
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    if adapter:
        with warnings.catch_warnings():  # layers that the file names in a way the library only half reads
            warnings.filterwarnings("error", message="While injecting the PEFT adapters")
            pipeline.load_lora_weights(str(adapter.parent), weight_name=adapter.name, adapter_name="adapter")
        pipeline.set_adapters(["adapter"], [how.strength])
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(how.device)


def sample(pipeline: Any, prompts: list[str], how: Sampling = Sampling()) -> Tensor:  # noqa: B008 - frozen
    """[N, 3, H, W] in -1..1. Prompt i starts from its own noise (seed * 1000 + i), whatever the batch size."""
    pictures = []
    for start in range(0, len(prompts), how.batch):
        chunk = prompts[start : start + how.batch]
        noise = [torch.Generator().manual_seed(how.seed * 1000 + start + i) for i in range(len(chunk))]
        result = pipeline(
            chunk, num_inference_steps=how.steps, guidance_scale=how.guidance, generator=noise, output_type="pil"
        )
        pictures += result.images
    return renderings.as_tensor(pictures)
