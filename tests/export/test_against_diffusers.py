"""What is said of diffusers is what its own loader does, run on the same keys."""

import pytest
import torch
from diffusers import StableDiffusion3Pipeline, StableDiffusionPipeline, StableDiffusionXLPipeline
from diffusers.utils import convert_unet_state_dict_to_peft

from tests.export import files
from tests.export.files import AB, dotted, flat, joint, lora, places, sgm
from tests.export.layers.models import denoiser as real_denoiser
from trainers.export.layers.families import family_shapes
from trainers.export.verify import verdicts

PIPELINES = {"sd15": StableDiffusionPipeline, "sd2": StableDiffusionPipeline, "sdxl": StableDiffusionXLPipeline}


def loaded(tensors, base):
    """The modules of the denoiser that diffusers finds in a file; ValueError as it raises it."""
    tensors = dict(tensors)
    if base not in PIPELINES:
        found, prefix = StableDiffusion3Pipeline.lora_state_dict(tensors), "transformer."
    else:
        config = real_denoiser(base).config if base == "sdxl" else None
        found, prefix = PIPELINES[base].lora_state_dict(tensors, unet_config=config)[0], "unet."
    if not all("lora" in key for key in found):
        raise ValueError("a key without lora in its name")
    own = {key.removeprefix(prefix): tensor for key, tensor in found.items() if key.startswith(prefix)}
    return {key.split(".lora_")[0] for key in convert_unet_state_dict_to_peft(own)} if own else set()


def verdict(tensors):
    return next(found for found in verdicts(tensors, {}) if found.ui == "diffusers")


@pytest.mark.parametrize(
    ("base", "name"),
    [("sd15", flat(text="lora_te_")), ("sd2", flat(text="lora_te_")), ("sdxl", sgm), ("sdxl", flat())],
    ids=["sd15", "sd2", "sdxl original", "sdxl"],
)
def test_it_finds_every_layer_that_kohya_names(base, name):
    layers = [place for place in family_shapes(base) if place[0] == "denoiser"]  # it misnames one that nobody trains
    wanted = {place: (2, 2) for place in layers if not place[1].startswith("add_embedding")}
    assert loaded(lora(wanted, name), base) == {path for _, path in wanted}
    assert verdict(lora(places(base), name)).loads == "whole"


def test_it_reads_peft_names_of_sd3_and_drops_kohyas_without_an_error():
    tensors = lora(files.denoiser("3.5-medium"), dotted("transformer"), alpha=None, ends=AB)
    assert loaded(tensors, "3.5-medium") == {path for _, path in files.denoiser("3.5-medium")}
    assert verdict(tensors).loads == "whole"
    for dropped in (joint("3.5-medium"), lora(places("3-medium"), flat("lora_transformer_"))):
        assert loaded(dropped, "3.5-medium") == set() and verdict(dropped).loads == "no"


MID = ["mid_block.attentions.0.transformer_blocks.0.attn2"]


@pytest.mark.parametrize(
    ("base", "make"),
    [
        ("sd15", lambda: files.loha(files.denoiser("sd15", MID), flat())),
        ("sd15", lambda: files.lokr(files.denoiser("sd15", MID), flat())),
        ("sdxl", lambda: lora(places("sdxl"), sgm) | {"bundle_emb.zib.clip_l": torch.ones(2, 768)}),
        ("3-medium", lambda: lora(files.denoiser("3-medium"), dotted("transformer"), ends=AB)),
        ("sd15", lambda: lora(files.denoiser("sd15", MID), dotted(), ends=AB)),
        (
            "sd15",
            lambda: lora(files.denoiser("sd15", MID), flat()) | {f"{flat()(('denoiser', MID[0]))}.x": torch.ones(1)},
        ),
    ],
    ids=["LoHa", "LoKr", "embedding", "alpha in SD 3", "alpha in SD 1.5", "strange key"],
)
def test_it_refuses_what_is_said_to_be_refused(base, make):
    tensors = make()
    with pytest.raises(ValueError):
        loaded(tensors, base)
    assert verdict(tensors).loads == "no"


@pytest.mark.parametrize("base", ["sd15", "sdxl", "3-medium"])
def test_it_drops_doras_magnitudes(base):
    name = {"sd15": flat(), "sdxl": sgm, "3-medium": dotted("transformer")}[base]
    shapes = dict(list(files.denoiser(base).items())[:4])
    alpha, ends = (None, AB) if base == "3-medium" else (1.0, (".lora_down.weight", ".lora_up.weight"))
    tensors = lora(shapes, name, alpha=alpha, ends=ends)
    more = {f"{name(place)}.dora_scale": torch.ones(shape[0], 1) for place, shape in shapes.items()}
    assert loaded(tensors | more, base) == loaded(tensors, base) == {path for _, path in shapes}
    assert verdict(tensors | more).loads == "partly" and verdict(tensors | more).unmatched == tuple(sorted(more))


def test_it_drops_original_block_names_beside_its_own():
    mid, down = ({p: s for p, s in files.denoiser("sdxl").items() if p[1].startswith(x)} for x in ("mid", "down"))
    assert loaded(lora(mid, sgm) | lora(down, flat()), "sdxl") == {path for _, path in down}
