"""A file that is written stands there whole and flushed to the disk, or not at all."""

import os
from types import SimpleNamespace

import pytest
from PIL import Image

from app import demo
from trainers.config import TrainConfig
from trainers.export.hashes import base_hashes
from trainers.files import write_whole
from trainers.preview import save_picture

RED = Image.new("RGB", (8, 8), "red")


def raising(error):
    def fail(*_):
        raise error

    return fail


def test_a_file_is_replaced_by_the_new_content(tmp_path):
    path = tmp_path / "a"
    for content in (b"old", b"new", b""):
        assert write_whole(path, content) == path
        assert path.read_bytes() == content
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=repr)
@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, step, error):
    (tmp_path / "a").write_bytes(b"old")
    monkeypatch.setattr(os, step, raising(error))
    with pytest.raises(type(error)):
        write_whole(tmp_path / "a", b"new")
    assert os.listdir(tmp_path) == ["a"] and (tmp_path / "a").read_bytes() == b"old"


def test_a_check_sees_the_new_content_and_can_refuse_it(tmp_path):
    (tmp_path / "a").write_bytes(b"old")

    def check(partial):
        assert partial.read_bytes() == b"new" and (tmp_path / "a").read_bytes() == b"old"
        raise ValueError

    with pytest.raises(ValueError):
        write_whole(tmp_path / "a", b"new", check)
    assert os.listdir(tmp_path) == ["a"] and (tmp_path / "a").read_bytes() == b"old"


@pytest.mark.parametrize(
    "save", [lambda folder: save_picture(RED, folder, 1, 0), lambda folder: demo.save_picture(RED, folder / "a.png")]
)
def test_pictures_appear_only_once_they_are_on_the_disk(tmp_path, monkeypatch, save):
    monkeypatch.setattr(os, "fsync", raising(OSError(28, "No space left on device")))
    with pytest.raises(OSError):
        save(tmp_path)
    assert os.listdir(tmp_path) == []


def test_remembered_hashes_appear_only_once_they_are_on_the_disk(tmp_path, monkeypatch):
    (tmp_path / "base.safetensors").write_bytes(b"base")
    monkeypatch.setattr(os, "fsync", raising(OSError(28, "No space left on device")))
    assert base_hashes(tmp_path / "base.safetensors", tmp_path / "cache" / "hashes.json")[1]
    assert os.listdir(tmp_path / "cache") == []


def test_the_demo_copies_the_adapter_and_the_files_beside_it(tmp_path, monkeypatch):
    output, out = tmp_path / "output", tmp_path / "elsewhere"
    output.mkdir()
    for name in ("a.safetensors", "a.json", "b.safetensors"):
        (output / name).write_text(name)
    run = SimpleNamespace(config=tmp_path / "config.toml", log=tmp_path / "log.txt")
    monkeypatch.setattr(demo.runs, "status", lambda run: SimpleNamespace(adapter=output / "a.safetensors"))
    monkeypatch.setattr(demo.config_io, "load", lambda path: TrainConfig())
    monkeypatch.setattr(demo.engine, "sample", lambda config, adapter, prompts, seed: [[RED] for _ in prompts])
    sheet, adapter = demo.show(run, "mascot", out, say=print)
    assert (sheet, adapter) == (out / demo.GRID, out / "a.safetensors")
    assert sorted(os.listdir(out)) == ["a.json", "a.safetensors", demo.GRID]
    assert adapter.read_text() == "a.safetensors"
    assert demo.show(run, "mascot", None, say=print) == (output / demo.GRID, output / "a.safetensors")
