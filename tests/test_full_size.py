"""Stable Diffusion 1.5 at its full size (random weights): both layouts train offline, within 12 GB, into a whole file.

Slow: each run is two steps at 512 pixels on the CPU, in a process of its own so that its peak memory is its own.
"""

import json
import subprocess
import sys

import pytest
import torch
from diffusers import PNDMScheduler, StableDiffusionPipeline
from PIL import Image
from safetensors import safe_open

from tests.tiny import write_full_size_sd15
from trainers import config_io
from trainers.adapters.adapter_file import read_adapter
from trainers.families.sd15 import SD15

GB = 2**30
MEASURED_RUN = """
import json, resource, runpy, sys
sys.argv = ["trainers", sys.argv[1]]
try:
    runpy.run_module("trainers", run_name="__main__")
except SystemExit as end:
    code = end.code
print(json.dumps({"code": code, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))
"""


@pytest.fixture(scope="module", params=["ldm", "diffusers"])
def trained(request, tmp_path_factory) -> dict:
    """The base (fp16 on disk, as such files are), the adapter file after two steps, and the peak of resident bytes."""
    folder = tmp_path_factory.mktemp(request.param)
    base = write_full_size_sd15(folder / ("sd15.safetensors" if request.param == "ldm" else "sd15"), request.param)
    pictures = folder / "pictures"
    pictures.mkdir()
    for i in range(2):
        Image.effect_noise((512, 512), 80 + i).save(pictures / f"{i}.png")
        (pictures / f"{i}.txt").write_text(f"noise number {i}", encoding="utf-8")
    config = config_io.parse(
        {
            "model": {"base": str(base)},
            "adapter": {"text_encoder": True, "rank": 16},
            "data": {"folders": [str(pictures)], "batch_size": 1, "validation_share": 0.0},
            "memory": {"checkpointing": True, "device": "cpu"},
            "optimizer": {"rate": 1e-2},
            "preview": {"every": 0},
            "saving": {"name": "full", "dtype": "fp32"},
            "schedule": {"steps": 2},
        }
    )
    run = folder / "run"
    run.mkdir()
    (run / "config.toml").write_text(config_io.dump(config), encoding="utf-8")
    ended = subprocess.run([sys.executable, "-c", MEASURED_RUN, str(run)], capture_output=True, text=True, check=False)
    facts = json.loads(ended.stdout.splitlines()[-1]) if ended.stdout else {}
    assert facts.get("code") == 0, ended.stderr[-2000:]
    return {"file": run / "output" / "full.safetensors", **facts}


@pytest.mark.slow
def test_two_steps_stay_within_12_gb(trained):
    print(f"peak {trained['peak'] / GB:.2f} GB")  # noqa: T201 - a measurement, shown by pytest -rP
    assert trained["peak"] < 12 * GB


@pytest.mark.slow
def test_the_file_has_the_modules_of_kohya(trained):
    with safe_open(trained["file"], "pt") as file:
        names = {key.split(".")[0] for key in file.keys()}  # noqa: SIM118 - not a dict
    assert sum(name.startswith("lora_unet_") for name in names) == 192
    assert sum(name.startswith("lora_te_text_model_encoder_layers_") for name in names) == 72
    assert "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_out_0" in names
    assert "lora_unet_mid_block_attentions_0_transformer_blocks_0_ff_net_0_proj" in names
    assert "lora_te_text_model_encoder_layers_11_mlp_fc2" in names


@pytest.mark.slow
def test_diffusers_gives_the_delta_that_was_trained(trained):
    parts = SD15.random(torch.float32)
    pipe = StableDiffusionPipeline(
        parts.vae, parts.text_encoders[0], parts.tokenizers[0], parts.denoiser, PNDMScheduler(), None, None,
        requires_safety_checker=False,
    )  # fmt: skip
    pipe.load_lora_weights(trained["file"])
    layers, errors = read_adapter(trained["file"]).layers, []
    for prefix, model in (("lora_unet_", pipe.unet), ("lora_te_text_model_", pipe.text_encoder)):
        for path, layer in model.named_modules():
            if len(getattr(layer, "lora_A", ())):
                ours = layers[prefix + path.removeprefix("text_model.").replace(".", "_")].delta()
                theirs = layer.get_delta_weight(next(iter(layer.lora_A))).float().reshape(ours.shape)
                assert ours.norm() > 0, path
                errors.append(((theirs - ours).norm() / ours.norm()).item())
    assert len(errors) == 192 + 72
    assert max(errors) < 1e-3
