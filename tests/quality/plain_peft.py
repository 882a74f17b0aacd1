"""The reference to beat: the plainest loop that trains a LoRA with diffusers and peft. AdamW, constant rate, plain L2.

`python -m tests.quality.plain_peft --base DIR --concept DIR --out FILE [--steps N --rank R --rate X --batch B]`
The file is one that diffusers' `load_lora_weights` reads. Alpha equals the rank.
The target is what the base predicts, epsilon or v, as its scheduler says.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from tests.quality import renderings

TARGETS = ["to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2"]  # "transformer"


def train(
    base: Path, concept: Path, out: Path, *, steps: int, rank: int, rate: float, batch: int, seed: int, device: str
) -> list[float]:
    """Train on every NAME.png + NAME.txt of `concept`, write `out`, return the loss of each step."""
    from diffusers import DDPMScheduler, StableDiffusionPipeline  # noqa: PLC0415 - heavy
    from peft import LoraConfig, get_peft_model_state_dict  # noqa: PLC0415 - heavy

    torch.manual_seed(seed)
    pipeline = StableDiffusionPipeline.from_pretrained(base, dtype=torch.float32).to(device)
    unet, scheduler = pipeline.unet, DDPMScheduler.from_config(pipeline.scheduler.config)
    for part in (unet, pipeline.vae, pipeline.text_encoder):
        part.requires_grad_(False)
    unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=TARGETS))
    weights = [p for p in unet.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=rate)
    pixels, captions = read_concept(concept, unet.config.sample_size * pipeline.vae_scale_factor)
    with torch.no_grad():
        posterior = pipeline.vae.encode(pixels.to(device)).latent_dist
        text = pipeline.encode_prompt(captions, device, 1, False)[0]
    losses = []
    for _ in range(steps):
        pick = torch.randint(len(captions), (batch,))
        latents = (posterior.mean + posterior.std * torch.randn_like(posterior.std))[pick]
        latents = latents * pipeline.vae.config.scaling_factor
        noise = torch.randn_like(latents)
        timesteps = torch.randint(scheduler.config.num_train_timesteps, (batch,), device=device)
        predicted = unet(scheduler.add_noise(latents, noise, timesteps), timesteps, text[pick]).sample
        loss = F.mse_loss(predicted, target_of(scheduler, latents, noise, timesteps))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    out.parent.mkdir(parents=True, exist_ok=True)
    StableDiffusionPipeline.save_lora_weights(out.parent, get_peft_model_state_dict(unet), weight_name=out.name)
    return losses


def target_of(scheduler: Any, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    """What the denoiser ought to predict, [B, C, h, w]. ValueError for a prediction type other than epsilon and v."""
    kind = scheduler.config.prediction_type
    if kind == "epsilon":
        return noise
    if kind == "v_prediction":
        return scheduler.get_velocity(latents, noise, timesteps)
    raise ValueError(f"The base predicts {kind!r}; this loop knows epsilon and v_prediction.")


def read_concept(folder: Path, side: int) -> tuple[Tensor, list[str]]:
    """Pixels [N, 3, side, side] in -1..1 and captions, in the order of the file names. Pictures must be square."""
    files = sorted(folder.glob("*.png"))
    pictures = [Image.open(f).convert("RGB").resize((side, side), Image.Resampling.LANCZOS) for f in files]
    return renderings.as_tensor(pictures), [f.with_suffix(".txt").read_text(encoding="utf-8").strip() for f in files]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--concept", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help=".safetensors file")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    arguments = vars(parser.parse_args())
    torch.set_num_threads(1)
    start = time.monotonic()
    losses = train(**arguments)
    last = losses[-100:]
    seconds = (time.monotonic() - start) / len(losses)
    print(f"{len(losses)} steps, {seconds:.3f} s each, mean of the last losses {sum(last) / len(last):.4f}")  # noqa: T201


if __name__ == "__main__":
    main()
