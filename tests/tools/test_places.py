"""Every layer of a full-size checkpoint has its place in the file, without its weights."""

from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.tiny_families import original_tensors, tiny_folder, write_checkpoint
from tests.tools import bases
from trainers.adapters.adapter import DENOISER
from trainers.export.layers.families import family_shapes
from trainers.families.folders import read_json
from trainers.families.loading import CONFIGS
from trainers.families.registry import FAMILIES
from trainers.tools import places
from trainers.tools.stored import open_base

BASES = {"sd2": "sd2-768", "sdxl": "sdxl", "3-medium": "sd3-medium", "3.5-medium": "sd3.5-medium"}


def full_size(family, folder):
    """Names and shapes of an original checkpoint, on the meta device."""
    parts = FAMILIES[family].source.layout.parts
    with torch.device("meta"):
        models = {part.folder: part.make(read_json(CONFIGS / folder / part.folder / "config.json")) for part in parts}
    return {name: tuple(t.shape) for name, t in original_tensors(family, SimpleNamespace(**models)).items()}


@pytest.mark.parametrize("base", BASES)
def test_every_layer_of_a_full_size_checkpoint_is_found_once(base):
    family = "sd3" if base.startswith("3") else base
    shapes = full_size(family, BASES[base])
    spots = places.in_file(family, shapes)
    wanted = {place: shape for place, shape in family_shapes(base).items() if place[0] != "text_2"}
    assert wanted.keys() - spots.keys() == set()
    assert len({(spot.name, spot.block) for spot in spots.values()}) == len(spots)
    for place, shape in wanted.items():
        spot = spots[place]
        rows, *rest = shapes[spot.name]
        stored = (rows // spot.blocks, *rest)
        assert (stored[::-1] if spot.turn == "transpose" else stored) == shape, place


def test_file_and_folder_have_the_same_layers(model):
    file, folder = open_base(model.file), open_base(model.folder)
    components = bases.load(model.family, model.folder)
    assert model.shapes.keys() <= file.spots.keys() and file.spots.keys() == folder.spots.keys()
    for place in model.shapes:
        one, other = file.weight(place), folder.weight(place)
        torch.testing.assert_close(one.reshape(other.shape), other, rtol=0, atol=0)
        weight = bases.weight_of(components, place)
        torch.testing.assert_close(other, weight, rtol=0, atol=0)


def test_a_file_of_stable_diffusion_3_without_text_encoders_is_a_base_for_the_tools(tmp_path):
    tensors = load_file(write_checkpoint("sd3", tiny_folder("sd3", tmp_path / "sd3"), tmp_path / "whole.safetensors"))
    alone = {name: tensor for name, tensor in tensors.items() if not name.startswith("text_encoders.")}
    save_file(alone, tmp_path / "alone.safetensors")
    found = open_base(tmp_path / "alone.safetensors")
    assert found.family == "sd3" and all(part == DENOISER for part, _ in found.spots)
