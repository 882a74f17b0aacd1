"""Of Stable Diffusion 3's table of positions a run keeps what its pictures need, and draws them as ever."""

from collections.abc import Iterator

import pytest
import torch

from tests.tiny_families import tiny_folder, write_checkpoint
from trainers import config_io, preview
from trainers.config import ModelConfig
from trainers.data.types import Bucket, Crop
from trainers.families.base import Components, Conditioning
from trainers.families.positions import keep_middle
from trainers.families.residence import bring, release
from trainers.families.sd3 import SD3
from trainers.families.sdxl import SDXL
from trainers.identities import identify
from trainers.memory.decide import resident
from trainers.memory.saving import PLAIN
from trainers.memory.settle import settle

CPU = torch.device("cpu")
WHOLE, WIDTH, PATCH = 12, 16, 4  # rows of the tiny model's table, numbers in each; pixels in a patch's side


@pytest.fixture(scope="module")
def bases(tmp_path_factory) -> Iterator[dict[str, str]]:
    """A tiny base as a folder, and as one file for which the bundled settings are replaced by its own."""
    place = tmp_path_factory.mktemp("bases")
    folder = tiny_folder("sd3", place / "sd3.5-medium")
    file = write_checkpoint("sd3", folder, place / "base.safetensors")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("trainers.families.loading.CONFIGS", place)
        patched.setattr("trainers.families.read_sd.TOKENIZER", folder / "tokenizer")
        yield {"folder": str(folder), "file": str(file)}


@pytest.fixture(scope="module")
def whole(bases) -> Components:
    return SD3.load(ModelConfig(base=bases["folder"]), torch.float32)


def predicted(components: Components, width: int, height: int) -> torch.Tensor:
    """The prediction for latents of a picture of that size."""
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(1, 16, height // 2, width // 2, generator=generator)
    told = Conditioning(torch.randn(1, 20, 32, generator=generator), torch.randn(1, 32, generator=generator))
    with torch.no_grad():
        return SD3.denoise(components.denoiser, latents, torch.tensor([300]), told)


@pytest.mark.parametrize(("form", "deferred"), [("folder", True), ("folder", False), ("file", True)])
@pytest.mark.parametrize(("pixels", "kept"), [(16, 4), (20, 6), (25, 6), (44, 12), (48, 12), (100, 12)])
def test_the_middle_of_the_table_predicts_the_same(bases, whole, form, deferred, pixels, kept):
    short = SD3.load(ModelConfig(base=bases[form]), torch.float32, deferred)
    keep_middle(short, pixels)
    for _ in range(2):
        bring(short.denoiser, CPU)
        assert short.denoiser.pos_embed.pos_embed.shape == (1, kept**2, WIDTH)
        for width in range(PATCH, min(pixels, WHOLE * PATCH) + 1, PATCH):
            for height in (PATCH, width):
                assert torch.equal(predicted(short, width, height), predicted(whole, width, height))
        release(short.denoiser)


def test_previews_are_no_larger_than_the_base_can_draw(bases):
    components = SD3.load(ModelConfig(base=bases["folder"]), torch.float32, deferred=True)
    config = config_io.parse({"preview": {"width": 64, "height": 32}})
    within, told = preview.bounded(config, components)
    assert (within.preview.width, within.preview.height) == (48, 32)
    assert told.what == "Previews have at most 48 pixels a side"
    assert preview.bounded(within, components) == (within, None)
    assert preview.bounded(config_io.parse({}), components)[1] is None


def test_a_packed_base_is_the_same_whatever_part_of_the_table_is_kept(bases, tmp_path):
    found = []
    for pixels in (16, 32):
        components = SD3.load(ModelConfig(base=bases["folder"]), torch.float32, deferred=True)
        keep_middle(components, pixels)
        settle(components.denoiser, "int8", PLAIN, CPU)
        found.append(identify(components.denoiser, tmp_path))
    assert found[0] == found[1]


def test_what_is_not_kept_takes_no_memory(bases):
    components = SD3.load(ModelConfig(base=bases["folder"]), torch.float32, deferred=True)
    before = resident(components, config_io.parse({}))
    keep_middle(components, 20)
    assert before - resident(components, config_io.parse({})) == (WHOLE**2 - 6**2) * WIDTH * 4


def test_a_denoiser_without_a_table_stays_as_it_is(tmp_path):
    components = SDXL.load(ModelConfig(base=str(tiny_folder("sdxl", tmp_path))), torch.float32)
    before = {name: weight.clone() for name, weight in components.denoiser.state_dict().items()}
    keep_middle(components, 16)
    assert components.denoiser.state_dict().keys() == before.keys()
    assert all(torch.equal(weight, before[name]) for name, weight in components.denoiser.state_dict().items())


def test_the_longest_side_is_that_of_a_preview_or_of_a_picture():
    config = config_io.parse({"preview": {"width": 640, "height": 1280}}).preview
    plain = config_io.parse({}).preview
    wide = Crop(Bucket(1536, 640), (1536, 640), 0, 0, 0.0)
    assert preview.longest(plain, 1024) == 1024
    assert preview.longest(config, 512) == preview.longest(config, 512, [Crop(Bucket(512, 512), (512, 512), 0, 0, 0.0)])
    assert preview.longest(config, 512) == 1280
    assert preview.longest(config, 1024, [wide]) == 1536
