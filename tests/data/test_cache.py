"""The cache: what is edited misses, what is damaged misses, a full disk is a sentence."""

import errno
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.nasty_folder import picture
from trainers.config import DataConfig
from trainers.data.buckets import plan
from trainers.data.cache import Cache, content_key, identity, latent_key, text_key
from trainers.data.examples import scan
from trainers.data.types import Bucket, Crop, Example
from trainers.errors import UserError

EXAMPLE = Example(Path("a.png"), "a cat", (64, 64), "ab" * 32)
CROP = Crop(Bucket(64, 48), (64, 64), 0, 8, 0.25)


def tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    mean = torch.randn(4, 16, 16, generator=generator)
    return {"mean": mean, "logvar": mean.half().transpose(1, 2), "one": torch.tensor(3.0)}


def test_what_is_put_comes_back_bit_for_bit(tmp_path):
    cache = Cache(tmp_path / "not there yet")
    key = content_key(a=1)
    assert cache.get(key) is None
    cache.put(key, tensors())
    found = cache.get(key)
    assert found.keys() == tensors().keys()
    for name, tensor in tensors().items():
        assert torch.equal(found[name], tensor) and found[name].dtype == tensor.dtype
    assert os.listdir(cache.folder) == [f"{key}.safetensors"]


@pytest.mark.parametrize("damage", [lambda d: b"", lambda d: d[:-1], lambda d: d[:20], lambda d: b"\xff" * len(d)])
def test_a_damaged_entry_is_a_miss_and_can_be_written_again(tmp_path, damage):
    cache = Cache(tmp_path)
    cache.put("k", tensors())
    file = tmp_path / "k.safetensors"
    file.write_bytes(damage(file.read_bytes()))
    assert cache.get("k") is None
    cache.put("k", tensors())
    assert cache.get("k") is not None


@pytest.mark.parametrize(
    ("code", "words"),
    [(errno.ENOSPC, "disk is full"), (errno.EACCES, "cannot be written"), (errno.EROFS, "cannot be written")],
)
def test_a_full_or_locked_disk_is_a_sentence_and_leaves_nothing_behind(tmp_path, monkeypatch, code, words):
    def refuse(_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(UserError, match=words) as raised:
        Cache(tmp_path).put("k", tensors())
    assert raised.value.hint and os.listdir(tmp_path) == []


def test_keys_depend_on_the_parts_and_not_on_their_order():
    assert content_key(a=1, b="x") == content_key(b="x", a=1)
    assert len({content_key(a=1), content_key(a=1.5), content_key(a="1"), content_key(b=1), content_key()}) == 5


def test_a_latent_key_changes_with_everything_that_changes_the_latent():
    variants = {
        latent_key(EXAMPLE, CROP, False, "vae"),
        latent_key(replace(EXAMPLE, content_hash="cd" * 32), CROP, False, "vae"),
        latent_key(EXAMPLE, replace(CROP, bucket=Bucket(64, 64)), False, "vae"),
        latent_key(EXAMPLE, replace(CROP, top=9), False, "vae"),
        latent_key(EXAMPLE, replace(CROP, scaled=(65, 64)), False, "vae"),
        latent_key(EXAMPLE, CROP, True, "vae"),
        latent_key(EXAMPLE, CROP, False, "other"),
    }
    assert len(variants) == 7
    renamed = replace(EXAMPLE, path=Path("b.png"), caption="a dog", repeats=7)
    assert latent_key(renamed, CROP, False, "vae") == latent_key(EXAMPLE, CROP, False, "vae")


def test_a_text_key_changes_with_caption_encoder_and_layer():
    keys = {text_key("a", "e", 1), text_key("b", "e", 1), text_key("a", "f", 1), text_key("a", "e", 2)}
    assert len(keys) == 4


def test_an_edited_picture_or_caption_never_meets_the_old_entry(tmp_path):
    def keys() -> tuple[str, str]:
        config = DataConfig(folders=(str(tmp_path),))
        example = scan(config).examples[0]
        crop = plan([example], config, 64, 16)[0]
        return latent_key(example, crop, False, "vae"), text_key(example.caption, "text", 1)

    picture(64, 64, 1).save(tmp_path / "a.bmp")
    (tmp_path / "a.txt").write_text("a cat")
    latent, text = keys()
    times = (tmp_path / "a.bmp").stat().st_atime_ns, (tmp_path / "a.bmp").stat().st_mtime_ns
    (tmp_path / "a.txt").write_text("a dog")
    assert keys()[0] == latent and keys()[1] != text
    picture(64, 64, 2).save(tmp_path / "a.bmp")  # the same size to the byte, and the same time
    os.utime(tmp_path / "a.bmp", ns=times)
    assert keys()[0] != latent
    picture(64, 64, 1).save(tmp_path / "a.bmp")
    assert keys()[0] == latent  # undone: the old entry is right again


def test_identity_is_of_the_weights_and_structure():
    def build(seed: int = 0, activation: type[nn.Module] = nn.GELU) -> nn.Module:
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(4, 4), activation(), nn.BatchNorm1d(4))  # has a 0-dim buffer

    assert identity(build()) == identity(build())
    assert len({identity(m) for m in (build(), build(1), build(0, nn.SiLU), build().half(), build().bfloat16())}) == 5
    module = build()
    with torch.no_grad():
        module[0].weight[0, 0] += 1e-6
    assert identity(module) != identity(build())
