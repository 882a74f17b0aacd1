"""Pictures and captions encoded once: together, from the cache or from a file, they are the same latents."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.tiny import tiny_pipeline_folder
from trainers import encoding, moments
from trainers.config import DataConfig, ModelConfig
from trainers.data.buckets import plan
from trainers.data.cache import Cache
from trainers.data.examples import scan
from trainers.data.images import open_picture, pixels
from trainers.encoding import encode_pictures
from trainers.errors import UserError
from trainers.families.residence import is_away
from trainers.families.sd15 import SD15
from trainers.latents import LatentStore
from trainers.stores import TextStore

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("base")
    tiny_pipeline_folder(folder)
    return str(folder)


@pytest.fixture
def pictures(tmp_path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(9):
        Image.effect_noise((64, 64 if i % 3 else 40), 60 + i).convert("RGB").save(folder / f"{i}.png")
    return folder


class Encoded:
    """What `encode_pictures` made of a folder, and how often the VAE was asked."""

    def __init__(self, base: str, folder: Path, cache: Cache | None, monkeypatch, flip: bool = True):
        self.components = SD15.load(ModelConfig(base=base), torch.float32, deferred=True)
        self.calls: list[int] = []
        self.done: list[int] = []
        encode = SD15.encode_image

        def counted(vae, pixel):
            self.calls.append(len(pixel))
            return encode(vae, pixel)

        config = DataConfig(folders=[str(folder)])
        self.examples = scan(config).examples
        self.crops = plan(self.examples, config, 32, 8)
        with monkeypatch.context() as patch:
            patch.setattr(SD15, "encode_image", counted, raising=False)
            given = (self.examples, self.crops, SD15, self.components, flip, cache, CPU)
            self.store: LatentStore = encode_pictures(*given, lambda name, done, total: self.done.append(done))

    def moments(self, index: int, mirrored: bool) -> torch.Tensor:
        bucket, row = self.store.rows[index, mirrored]
        return self.store.moments[bucket][row]


def halved(cache: Path) -> list[Path]:
    """Remove every other file, as if the encoding had been interrupted; those that are left."""
    files = sorted(cache.rglob("*.safetensors"))
    for file in files[::2]:
        file.unlink()
    return files[1::2]


def test_what_an_interruption_left_out_is_encoded_to_the_very_numbers(pictures, tmp_path, monkeypatch):
    whole = Encoded("embedded", pictures, Cache(tmp_path / "cache"), monkeypatch)
    assert max(whole.calls) > 2 and halved(tmp_path / "cache")
    again = Encoded("embedded", pictures, Cache(tmp_path / "cache"), monkeypatch)
    assert again.calls == whole.calls
    for index in range(9):
        for mirrored in (False, True):
            assert torch.equal(again.moments(index, mirrored), whole.moments(index, mirrored))


def test_captions_that_an_interruption_left_out_are_encoded_with_the_same_others(base, tmp_path, monkeypatch):
    components = SD15.load(ModelConfig(base=base), torch.float32)
    asked, encode = [], SD15.encode_text

    def counted(encoders, tokens, clip_skip):
        asked.append(len(tokens[0]))
        return encode(encoders, tokens, clip_skip)

    monkeypatch.setattr(SD15, "encode_text", counted, raising=False)
    text = TextStore([f"a cat {i}" for i in range(20)], SD15, components, 1, CPU)
    whole = text.encode_all(Cache(tmp_path), lambda *_: None)
    halved(tmp_path)
    again = text.encode_all(Cache(tmp_path), lambda *_: None)
    assert asked == [16, 4, 16, 4] and torch.equal(again.embeds, whole.embeds)


def test_pictures_of_a_bucket_are_encoded_together_as_if_alone(base, pictures, tmp_path, monkeypatch):
    monkeypatch.setitem(encoding.AT_ONCE, "cpu", 4 * 32 * 32)
    found = Encoded(base, pictures, Cache(tmp_path / "cache"), monkeypatch)
    assert max(found.calls) == 4 and sum(found.calls) == 18 == found.done[-1]
    latent = found.components.latent
    vae = SD15.load(ModelConfig(base=base), torch.float32).vae
    for index, (example, crop) in enumerate(zip(found.examples, found.crops, strict=True)):
        for mirrored in (False, True):
            pixel = pixels(open_picture(example.path), crop, mirrored)[None]
            with torch.no_grad():
                mean, logvar = SD15.encode_image(vae, pixel)
            std = (0.5 * logvar[0]).exp() * latent.scaling
            expected = torch.stack([(mean[0] - latent.shift) * latent.scaling, std])
            torch.testing.assert_close(found.moments(index, mirrored), expected, rtol=1e-4, atol=1e-5)


def test_what_is_cached_needs_no_vae(base, pictures, tmp_path, monkeypatch):
    cache = Cache(tmp_path / "cache")
    first = Encoded(base, pictures, cache, monkeypatch)
    assert is_away(first.components.vae)
    monkeypatch.setattr("trainers.moments.bring", None)
    again = Encoded(base, pictures, cache, monkeypatch)
    assert again.calls == [] and is_away(again.components.vae)
    for index in range(9):
        assert torch.equal(first.moments(index, True), again.moments(index, True))


def test_one_new_picture_costs_one_call(base, pictures, tmp_path, monkeypatch):
    cache = Cache(tmp_path / "cache")
    Encoded(base, pictures, cache, monkeypatch, flip=False)
    Image.effect_noise((64, 64), 99).convert("RGB").save(pictures / "new.png")
    assert len(Encoded(base, pictures, cache, monkeypatch, flip=False).calls) == 1  # with those beside it


def test_a_picture_that_changes_meanwhile_ends_it_with_a_sentence(base, pictures, tmp_path, monkeypatch):
    real = moments.open_picture

    def changing(path, content_hash):
        if path.name == "4.png":
            Image.new("RGB", (64, 64)).save(path)
        return real(path, content_hash)

    monkeypatch.setattr(moments, "open_picture", changing)
    with pytest.raises(UserError, match=r"4\.png was changed after this run began"):
        Encoded(base, pictures, Cache(tmp_path / "cache"), monkeypatch)


@pytest.mark.parametrize("cached", [True, False])
def test_more_captions_than_fit_in_memory_are_the_same_captions(base, tmp_path, monkeypatch, cached):
    captions = [f"a picture of thing {i}" for i in range(40)]
    rows, found = torch.tensor([3, 39, 0]), []
    for budget in (1 << 20, 0):
        monkeypatch.setattr("trainers.data.rows.Budget.__init__.__defaults__", (budget,))
        components = SD15.load(ModelConfig(base=base), torch.float32, deferred=True)
        text = TextStore(captions, SD15, components, 1, CPU)
        told = text.encode_all(Cache(tmp_path / str(budget)) if cached else None, lambda *_: None)
        assert isinstance(told.embeds, torch.Tensor) == (budget > 0)
        found.append(told.rows(rows).embeds)
    assert torch.equal(*found)


def test_prompts_are_encoded_once_while_the_text_encoders_are_away(base, tmp_path, monkeypatch):
    components = SD15.load(ModelConfig(base=base), torch.float32, deferred=True)
    text = TextStore(["a cat", ""], SD15, components, 1, CPU)
    text.cached, text.still = text.encode_all(None, lambda *_: None), True
    for encoder in components.text_encoders:
        encoder.to("meta")
    told = text.tell(["a dog", "a cat", ""])
    assert all(is_away(encoder) for encoder in components.text_encoders)
    assert torch.equal(told.embeds[1:], text.cached.embeds)
    monkeypatch.setattr("trainers.stores.encode_texts", None)
    again = text.tell(["", "a dog"])
    assert torch.equal(again.embeds, told.embeds[[2, 0]])
