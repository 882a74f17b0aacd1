"""What every family and every adapter type owes: one run each, from the folder to the file that a stranger loads."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from safetensors.torch import load_file

from tests.tiny import tiny_pipeline_folder, write_json
from tests.tiny_families import read_pipeline, tiny_folder
from trainers import config_io, events
from trainers.adapters.adapter import DENOISER, Place, modules_of_state
from trainers.adapters.adapter_file import apply_file
from trainers.adapters.registry import ADAPTERS
from trainers.adapters.unheard import unheard
from trainers.adapters.weights import Weights
from trainers.config import TrainConfig
from trainers.errors import UserError
from trainers.export.writer import FORMS
from trainers.export_run import export_run
from trainers.families.base import Components, plain_sizes
from trainers.families.registry import FAMILIES, find_family
from trainers.noise import build_noise
from trainers.sample import sample
from trainers.train import Folders, train

STEPS, STOP = 20, 10
DIFFUSERS_READS = {  # in kohya's layout, or in its own: it drops dora_scale
    "sd15": ("lora", "locon", "dora"),
    "sd2": ("lora", "locon", "dora"),
    "sdxl": ("lora", "locon", "dora"),
    "sd3": ("lora",),
}


@dataclass
class Trained:
    family: str
    kind: str
    config: TrainConfig
    run: Path
    seen: list[events.Event]

    @property
    def file(self) -> Path:
        return self.run / self.seen[-1].path

    @property
    def modules(self) -> dict[Place, Weights]:
        state = load_file(self.run / "checkpoints" / f"step_{STEPS:06d}" / "adapter.safetensors")
        return modules_of_state(state, self.config.adapter)


@pytest.fixture(scope="module", params=FAMILIES)
def base(request, tmp_path_factory) -> Path:
    """A tiny pipeline that can learn a picture: its latents are as large as those of a trained one."""
    folder = tmp_path_factory.mktemp(request.param) / request.param
    if request.param == "sd15":
        tiny_pipeline_folder(folder)
    else:
        tiny_folder(request.param, folder)
    settings = folder / "vae" / "config.json"
    found = json.loads(settings.read_text("utf-8"))
    if request.param != "sd3":
        write_json(settings, found | {"scaling_factor": 20 * found["scaling_factor"]})
    return folder


@pytest.fixture(scope="module", params=ADAPTERS)
def trained(request, base, tmp_path_factory) -> Trained:
    folder = tmp_path_factory.mktemp(request.param)
    picture = folder / "picture"
    picture.mkdir()
    Image.radial_gradient("L").resize((24, 16)).convert("RGB").save(picture / "one.png")
    (picture / "one.txt").write_text("a red ball", encoding="utf-8")
    config = settings(base, picture, request.param)
    run = folder / "run"
    return Trained(base.name, request.param, config, run, go(config, run))


def settings(base: Path, picture: Path, kind: str) -> TrainConfig:
    return config_io.parse(
        {
            "model": {"base": str(base)},
            "adapter": {"type": kind, "rank": 2, "alpha": 1.0, "text_encoder": True},
            "data": {"folders": [str(picture)], "batch_size": 2, "validation_share": 0.0, "flip": True}
            | (
                {"resolution": 32} if base.name == "sdxl" else {}
            ),  # its adapter sits where smaller pictures are nearly gone
            "loss": {"weighting": "none"},
            "optimizer": {"rate": 3e-2 if base.name == "sdxl" else 1e-2},
            "preview": {"every": STEPS, "sampling_steps": 2, "prompts": ["a red ball"], "guidance": 2.0},
            "saving": {"name": "tiny", "dtype": "fp32"},
            "schedule": {"steps": STEPS, "type": "constant"},
        }
    )


def go(config: TrainConfig, run: Path, stop_at: int | None = None) -> list[events.Event]:
    run.mkdir(exist_ok=True)
    config_io.save(config, run / "config.toml")
    seen: list[events.Event] = []

    def emit(event: events.Event) -> None:
        seen.append(event)
        if isinstance(event, events.Step) and event.step == stop_at:
            (run / "control").mkdir(exist_ok=True)
            (run / "control" / "stop").touch()

    train(config, Folders(run, run.parent / "cache"), emit)
    return seen


def test_the_family_is_told_and_the_picture_is_learnt(trained):
    family = find_family(trained.config.model)
    assert family.spec.name == trained.family
    components = family.load(trained.config.model, torch.float32)
    before = loss_on_the_picture(trained, components)
    apply_file(components, trained.file, 1.0, strict=True)
    assert loss_on_the_picture(trained, components) < 0.998 * before


@torch.no_grad()
def loss_on_the_picture(trained: Trained, components: Components) -> float:
    """The mean squared error on the one picture, over the same 8 noises and levels each time."""
    family = FAMILIES[trained.family]
    picture = trained.config.data.folders[0]
    with Image.open(Path(picture) / "one.png") as opened:
        pixels = torch.from_numpy(np.array(opened)).permute(2, 0, 1)[None] / 127.5 - 1
    noise = build_noise(components.scheduler, trained.config.noise, torch.device("cpu"))
    generator = torch.Generator().manual_seed(1)
    mean, _ = family.encode_image(components.vae, pixels)
    latents = ((mean - components.latent.shift) * components.latent.scaling).repeat(8, 1, 1, 1)
    added, timesteps = noise.noise_like(latents, generator), noise.levels(8)
    noisy, target = noise.corrupt(latents, added, timesteps)
    told = family.encode_text(components.text_encoders, family.tokenize(components, ["a red ball"] * 8), 1)
    told = told.sized(plain_sizes(family, pixels.shape[3], pixels.shape[2], 8, latents.device))
    return (family.denoise(components.denoiser, noisy, timesteps, told) - target).square().mean().item()


def test_every_trained_layer_changes(trained):
    spec, modules = FAMILIES[trained.family].spec, trained.modules
    assert {place for place, module in modules.items() if module.idle} == unheard(modules, spec)
    warnings = [event.message for event in trained.seen if isinstance(event, events.Warned)]
    assert not any("change nothing" in message for message in warnings)
    parts = {part for (part, _), module in modules.items() if not module.idle}
    assert parts == {DENOISER, *(f"text_{i}" for i in range(len(spec.text_prefixes)))}


def test_a_stopped_run_goes_on_to_the_very_same_weights(trained, tmp_path):
    first = go(trained.config, tmp_path, STOP)
    assert isinstance(first[-1], events.Stopped)
    (tmp_path / "control" / "stop").unlink()
    go(trained.config, tmp_path)
    name = f"checkpoints/step_{STEPS:06d}/adapter.safetensors"
    one, other = load_file(trained.run / name), load_file(tmp_path / name)
    assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_the_file_draws_what_the_run_drew(trained):
    (drawn,) = sample(trained.config, trained.file, ["a red ball"], seed=trained.config.preview.seed)
    with Image.open(trained.run / "samples" / f"step_{STEPS:06d}_0.png") as picture:
        difference = np.abs(np.asarray(picture, int) - np.asarray(drawn[0], int)).max()
    assert difference <= (1 if trained.family == "sd3" else 0)  # there alpha is multiplied in: one more rounding


@pytest.mark.parametrize("form", FORMS)
def test_every_layout_reads_back_as_trained(trained, tmp_path, form):
    refused = form == "diffusers" and trained.kind in ("loha", "lokr")
    if refused:
        with pytest.raises(UserError, match="diffusers reads no"):
            export_run(trained.run, None, form, tmp_path)
        return
    said = export_run(trained.run, None, form, tmp_path)
    assert "read back as trained" in said["verified"] and said["files"]


def test_diffusers_loads_the_update_that_was_trained(trained, tmp_path):
    if trained.kind not in DIFFUSERS_READS[trained.family]:
        pytest.skip("diffusers reads no such files for this family")
    form = "diffusers" if trained.family == "sd3" or trained.kind == "dora" else "kohya"
    file = Path(export_run(trained.run, None, form, tmp_path)["adapter"])
    base = Path(trained.config.model.base)
    if trained.family == "sd15":
        pipe = StableDiffusionPipeline.from_pretrained(base, safety_checker=None)
    else:
        pipe = read_pipeline(trained.family, base)
    pipe.load_lora_weights(file)
    denoiser = pipe.transformer if trained.family == "sd3" else pipe.unet
    models = {DENOISER: denoiser, "text_0": pipe.text_encoder, "text_1": getattr(pipe, "text_encoder_2", None)}
    for (part, path), module in trained.modules.items():
        layer = layer_of(models[part], path)
        (name,) = layer.lora_A
        theirs, ours = layer.get_delta_weight(name).float(), module.delta(layer.base_layer.weight)
        if trained.kind == "dora":
            theirs = effective(layer) - layer.base_layer.weight
        rounding = 1e-6 * layer.base_layer.weight.norm() if trained.kind == "dora" else 0  # of the sizes of W's columns
        assert (theirs.reshape(ours.shape) - ours).norm() <= 1e-3 * ours.norm() + rounding, path


def layer_of(model: torch.nn.Module, path: str) -> torch.nn.Module:
    """The adapted layer; diffusers' pipelines may have CLIP with one level more or less."""
    names = dict(model.named_modules())
    return names.get(path) or names.get(f"text_model.{path}") or names[path.removeprefix("text_model.")]


def effective(layer: torch.nn.Module) -> torch.Tensor:
    """The weight that an adapted layer multiplies with, found by feeding it one 1 at a time."""
    base = layer.base_layer
    if base.weight.ndim == 2:
        ones = torch.eye(base.in_features)
        return (layer(ones) - layer(torch.zeros_like(ones))).T
    for part in (base, *layer.lora_A.values()):
        part.stride = (1, 1)
    size = base.kernel_size[0]
    ones = torch.zeros(base.in_channels, base.in_channels, size, size)
    ones[:, :, base.padding[0], base.padding[0]] = torch.eye(base.in_channels)
    return (layer(ones) - layer(torch.zeros_like(ones))).transpose(0, 1).flip(2, 3)
