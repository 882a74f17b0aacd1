"""Stage 2: train the denoiser and the text encoder from scratch on the words of words.txt (resumable)."""

import argparse
import time
from pathlib import Path

import torch
import training
from captions import caption
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from pictures import Picture, flatten, load, pictures, words
from tokenizer import build_tokenizer
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

LENGTH = 32  # tokens
WIDTH = 128  # of the text encoder and the cross-attention


def build_unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(48, 96, 192),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=WIDTH,
        attention_head_dim=4,
        norm_num_groups=16,
    )


def build_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        projection_dim=WIDTH,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=LENGTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel(config)


def build_scheduler() -> DDIMScheduler:
    """v-prediction: at high noise an error in v stays its size in the picture; one in epsilon grows 15 times."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="v_prediction",
    )


@torch.no_grad()
def encode(vae: AutoencoderKL, packages: Path) -> tuple[list[Picture], Tensor, Tensor]:
    """Pictures, posterior means and standard deviations [N, 4, 16, 16], scaled, of every learnt word in both styles."""
    learnt = set(words())
    found = [p for p in pictures(packages) if p.name in learnt]
    rgb = flatten(load([p.path for p in found]))
    posteriors = [vae.encode(part).latent_dist for part in rgb.split(32)]
    scale = vae.config.scaling_factor
    mean, std = (torch.cat([getattr(p, part) for p in posteriors]) * scale for part in ("mean", "std"))
    return found, mean, std


def timesteps(count: int, generator: torch.Generator) -> Tensor:
    """One timestep per equal slice of 0..999: the mean loss moves less than with independent draws."""
    return ((torch.arange(count) + torch.rand(count, generator=generator)) / count * 1000).long()


def train(packages: Path, out: Path, begin: Path | None, steps: int, batch: int, peak: float, report: int) -> None:
    rank, world = training.start()
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    tokenizer = build_tokenizer(packages, out / "tokenizer", LENGTH)
    unet, text_encoder, scheduler = build_unet(), build_text_encoder(tokenizer), build_scheduler()
    vae = AutoencoderKL.from_pretrained(begin / "vae" if begin else out / "vae").eval()
    if begin:
        unet.load_state_dict(UNet2DConditionModel.from_pretrained(begin / "unet").state_dict())
        text_encoder.load_state_dict(CLIPTextModel.from_pretrained(begin / "text_encoder").state_dict())
    unet.to(device, memory_format=torch.channels_last).train()
    text_encoder.to(device).train()
    found, mean, std = encode(vae, packages)
    mean, std = mean.to(device), std.to(device)
    trained = [*unet.parameters(), *text_encoder.parameters()]
    decayed, plain = [p for p in trained if p.ndim > 1], [p for p in trained if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 0.01}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=peak, betas=(0.9, 0.99), fused=True)
    ema = training.Ema(trained, 0.999)
    state_file, step = out / "denoiser.pt", 0
    if state_file.exists():
        state = torch.load(state_file, weights_only=True, map_location=device)
        unet.load_state_dict(state["unet"])
        text_encoder.load_state_dict(state["text_encoder"])
        optimizer.load_state_dict(state["optimizer"])
        ema.values, step = state["ema"], state["step"]
    alphas = scheduler.alphas_cumprod.to(device)
    snr = alphas / (1 - alphas)
    weights = torch.minimum(snr + 1, torch.tensor(6.0)) / (snr + 1)  # plain v loss, its low-noise end held at min-SNR 5
    total, start = 0.0, time.time()
    while step < steps:
        generator = torch.Generator().manual_seed(step * world + rank)
        training.set_rate(optimizer, training.rate_at(step, steps, peak))
        chosen = torch.randint(len(found), (batch,), generator=generator)
        latents = mean[chosen] + std[chosen] * torch.randn(batch, 4, 16, 16, generator=generator).to(device)
        noise = torch.randn(latents.shape, generator=generator).to(device)
        t = timesteps(batch, generator).to(device)
        texts = [caption(found[i], generator) for i in chosen.tolist()]
        encoded = tokenizer(texts, padding="max_length", truncation=True, max_length=LENGTH, return_tensors="pt")
        ids = encoded.input_ids.to(device)
        noisy, target = scheduler.add_noise(latents, noise, t), scheduler.get_velocity(latents, noise, t)
        embeds = text_encoder(ids).last_hidden_state
        prediction = unet(noisy.contiguous(memory_format=torch.channels_last), t, embeds).sample
        loss = (weights[t] * (prediction - target).pow(2).mean(dim=(1, 2, 3))).mean()
        optimizer.zero_grad()
        loss.backward()
        training.average_gradients(trained, world)
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        step += 1
        ema.update(step)
        total += loss.item()
        if rank == 0 and (step % report == 0 or step == steps):
            state = {"unet": unet.state_dict(), "text_encoder": text_encoder.state_dict(), "ema": ema.values}
            training.save_state(state_file, state | {"optimizer": optimizer.state_dict(), "step": step})
            with ema.shown():
                export(out, tokenizer, vae, unet, text_encoder, scheduler)
            spent = time.time() - start
            print(f"step {step} loss {total / report:.4f}, {report * batch * world / spent:.1f} pictures/s", flush=True)
            total, start = 0.0, time.time()


def export(out: Path, tokenizer, vae, unet, text_encoder, scheduler) -> None:  # noqa: ANN001
    """Write the fp16 pipeline folder."""
    parts = {"vae": vae, "unet": unet, "text_encoder": text_encoder}
    parts = {
        name: type(m).from_config(m.config) if name != "text_encoder" else type(m)(m.config)
        for name, m in parts.items()
    }
    for copy, source in zip(parts.values(), (vae, unet, text_encoder), strict=True):
        copy.load_state_dict({k: v.cpu() for k, v in source.state_dict().items()})
    pipe = StableDiffusionPipeline(
        **{name: m.eval().half() for name, m in parts.items()},
        tokenizer=tokenizer,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.save_pretrained(out / "model")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--packages", type=Path, required=True, help="node_modules holding the emoji packages")
    parser.add_argument("--out", type=Path, required=True, help="folder with the trained vae; the model lands here too")
    parser.add_argument("--begin", type=Path, help="a finished model whose weights a new run starts from")
    parser.add_argument("--steps", type=int, default=4640)
    parser.add_argument("--batch", type=int, default=16, help="pictures per process")
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--report", type=int, default=500, help="steps between saves")
    a = parser.parse_args()
    a.out.mkdir(parents=True, exist_ok=True)
    train(a.packages, a.out, a.begin, a.steps, a.batch, a.rate, a.report)
