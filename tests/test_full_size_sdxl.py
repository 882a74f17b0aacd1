"""SDXL at its full size (random weights) as one file: told from its header alone, loaded in little more than its size.

Slow, and 7 GB on the disk.
"""

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file

from tests.tiny_families import original_tensors
from trainers.config import ModelConfig
from trainers.families.locate import Glance, require_base
from trainers.families.sdxl import SDXL

GB = 2**30
LOAD = """
import json, resource, sys
import torch
from trainers.config import ModelConfig
from trainers.families.registry import find_family
config = ModelConfig(base=sys.argv[1])
family = find_family(config)
components = family.load(config, torch.bfloat16)
models = (components.denoiser, components.vae, *components.text_encoders)
size = sum(2 * p.numel() for model in models for p in model.parameters())
print(json.dumps({"size": size, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> str:
    components = SDXL.random(torch.float16)
    parts = {"unet": components.denoiser, "vae": components.vae.half()}
    parts |= dict(zip(("text_encoder", "text_encoder_2"), components.text_encoders, strict=True))
    path = tmp_path_factory.mktemp("sdxl") / "sdxl.safetensors"
    tensors = original_tensors("sdxl", type("Pipe", (), parts))
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    return str(path)


@pytest.mark.slow
def test_the_header_tells_family_and_prediction(file, monkeypatch):
    monkeypatch.setattr("trainers.families.weights.Weights.take", None)  # no tensor is read
    assert require_base(ModelConfig(base=file)) == Glance(
        "sdxl", "sdxl.safetensors: Stable Diffusion XL, predicts epsilon"
    )


@pytest.mark.slow
def test_loading_takes_the_models_own_size_and_two_gigabytes_at_most(file):
    ended = subprocess.run([sys.executable, "-c", LOAD, file], capture_output=True, text=True, check=True)
    facts = json.loads(ended.stdout.splitlines()[-1])
    assert facts["peak"] <= facts["size"] + 2 * GB
