"""The four commands as a person types them: what they print, and the one sentence where something is wrong."""

import errno
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.commands import assert_refused, files_below, here
from tests.export.files import AB, denoiser, dotted, flat, lora, sgm
from trainers.families.keys import kind_of
from trainers.tools import stream

ATTENTION = ["mid_block.attentions.0.transformer_blocks.0.attn2"]


@pytest.fixture
def darkroom(capsys):
    return here(capsys)


@pytest.fixture
def place(tmp_path):
    """Adapters of two families, a text, and a base of a few small tensors under their true names."""
    save_file(lora(denoiser("sd15", ATTENTION), flat(), 4), tmp_path / "one.safetensors", {"ss_network_dim": "4"})
    save_file(lora(denoiser("sd15", ATTENTION), flat(), 2, 2.0), tmp_path / "two.safetensors")
    save_file(lora(denoiser("sdxl", ATTENTION), sgm), tmp_path / "xl.safetensors")
    save_file(lora(denoiser("sd15", ATTENTION), dotted(), 4, None, AB), tmp_path / "dotted.safetensors")
    (tmp_path / "text.safetensors").write_text("this is no model at all", encoding="utf-8")
    names = "".join(["model.diffusion_model.", "{}.weight"])
    layers = {"input_blocks.0.0": (1280, 4, 3, 3)}
    layers |= {f"middle_block.1.transformer_blocks.0.attn2.to_{x}": (1280, 768 if x in "kv" else 1280) for x in "qkv"}
    tensors = {names.format(name): torch.randn(shape).half() for name, shape in layers.items()}
    tensors |= {"cond_stage_model.transformer.text_model.x.weight": torch.zeros(3).half()}
    assert kind_of({name: tuple(t.shape) for name, t in tensors.items()}) == ("base", "sd15", "ldm")
    save_file(tensors, tmp_path / "base.safetensors")
    save_file({name: t + 0.125 for name, t in tensors.items()}, tmp_path / "tuned.safetensors")
    return tmp_path


def test_merge_of_adapters_as_it_is_typed(place, darkroom):
    said = darkroom(
        *("merge", place / "one.safetensors", place / "two.safetensors", "--weights", 1, 0.5, "--out", place / "new")
    )
    assert said.code == 0, said.err
    assert f"adapter: {place / 'new.safetensors'}" in said.out and "rank: 6" in said.out
    assert "merged: one.safetensors 1, two.safetensors 0.5" in said.out


def test_merge_into_a_base_and_extract_give_the_adapter_back(place, darkroom):
    save_file(lora(denoiser("sd15", [f"{ATTENTION[0]}.to_q"]), flat(), 2), place / "q.safetensors")
    merged = darkroom("merge", place / "base.safetensors", place / "q.safetensors", "--out", place / "m", "--json")
    assert json.loads(merged.out)["layers changed"] == 1, merged.err
    assert load_file(place / "m.safetensors").keys() == load_file(place / "base.safetensors").keys()
    back = darkroom("extract", place / "m.safetensors", place / "base.safetensors", "--rank", 2, "--out", place / "x")
    assert back.code == 0 and "layers: denoiser 1" in back.out and "equal layers" in back.out, back.err


def test_between_two_bases(place, darkroom):
    arguments = ("merge", "--strength", 0.5, place / "base.safetensors", place / "tuned.safetensors")
    said = darkroom(*arguments, "--out", place / "half")
    assert said.code == 0 and "base.safetensors 0.5, tuned.safetensors 0.5" in said.out, said.err
    one, half = load_file(place / "base.safetensors"), load_file(place / "half.safetensors")
    for name, tensor in one.items():
        torch.testing.assert_close(half[name], tensor + 0.0625, rtol=1e-3, atol=1e-3)


def test_resize_and_convert_as_they_are_typed(place, darkroom):
    said = darkroom("resize", place / "one.safetensors", "--rank", 2)
    assert "rank before: 4" in said.out and "rank after: 2" in said.out and "error: " in said.out, said.err
    said = darkroom("convert", place / "dotted.safetensors", "--to", "kohya", "--dtype", "fp16")
    assert said.code == 0 and "mended:\n  - Its names are diffusers' own" in said.out, said.err
    facts = json.loads(darkroom("inspect", place / "dotted-kohya-fp16.safetensors", "--json").out)
    assert facts["problems"] == []


WRONG = {  # what is typed (`n` and what ends in .safetensors are files) -> words of the sentence
    "merge one.safetensors xl.safetensors --out n": ("one.safetensors is for Stable Diffusion 1.x", "XL"),
    "merge base.safetensors xl.safetensors --out n": ("xl.safetensors is for Stable Diffusion XL", "base.safetensors"),
    "merge one.safetensors base.safetensors --out n": ("base.safetensors is a base model", "not the first"),
    "merge one.safetensors --out n": ("only one file",),
    "merge one.safetensors two.safetensors --weights 1 --out n": ("There is 1 weight for 2 adapters.",),
    "merge one.safetensors two.safetensors --weights 1 nan --out n": ("One of --weights is nan", "from -10 to 10"),
    "merge one.safetensors two.safetensors --weights 1e9 1 --out n": ("One of --weights is 1e+09", "from -10 to 10"),
    "merge base.safetensors one.safetensors --weights inf --out n": ("One of --weights is inf", "from -10 to 10"),
    "merge base.safetensors tuned.safetensors --strength nan --out n": ("--strength is nan", "from -10 to 10"),
    "merge one.safetensors two.safetensors --weights x --out n": ("x is no weight",),
    "merge one.safetensors two.safetensors --how sum --out n": ('--how takes no "sum"', "concat, svd"),
    "merge one.safetensors two.safetensors --how svd --out n": ("Neither a rank nor a share",),
    "merge base.safetensors tuned.safetensors --out n": ("--strength 0.5",),
    "merge base.safetensors one.safetensors --strength 1 --out n": ("--strength is for two base models",),
    "merge base.safetensors one.safetensors --rank 8 --out n": ("--rank", "a base keeps its layout"),
    "merge one.safetensors two.safetensors --out one.safetensors": ("is an input",),
    "merge one.safetensors two.safetensors --out xl.safetensors": ("there already",),
    "merge one.safetensors two.safetensors --out no/n.safetensors": ("There is no folder",),
    "merge one.safetensors gone.safetensors --out n": ("There is no file", "gone.safetensors"),
    "merge one.safetensors text.safetensors --out n": ("text.safetensors",),
    "merge one.safetensors two.safetensors --dtype fp4 --out n": ('--dtype takes no "fp4"',),
    "resize one.safetensors": ("Neither a rank nor a share",),
    "resize one.safetensors --rank 0": ("must be 1 or more",),
    "resize one.safetensors --keep 1.5": ("at most 1",),
    "resize base.safetensors --rank 2": ("base model, not a LoRA adapter",),
    "extract one.safetensors base.safetensors --rank 2 --out n": ("one.safetensors is a LoRA adapter", "not a base"),
    "extract base.safetensors base.safetensors --rank 2 --out n": ("the same weights",),
    "convert one.safetensors --to webui": ('--to takes no "webui"', "kohya, diffusers, peft"),
    "convert gone.safetensors --to kohya": ("There is no file",),
    "convert one.safetensors --alpha -1": ("must be a number above 0",),
    "convert one.safetensors --alpha nan": ("--alpha is nan", "must be a number above 0"),
    "convert one.safetensors --alpha inf": ("--alpha is inf", "must be a number above 0"),
    "resize one.safetensors --keep nan": ("--keep is nan", "at most 1"),
    "extract gone.safetensors base.safetensors --out n": ("There is no file", "gone.safetensors"),
}


@pytest.mark.parametrize("typed", WRONG)
def test_what_is_wrong_is_one_sentence_and_leaves_nothing(place, darkroom, typed):
    before = files_below(place)
    words = [place / word if word.endswith(".safetensors") or word == "n" else word for word in typed.split()[1:]]
    assert_refused(darkroom(typed.split()[0], *words), *WRONG[typed])
    assert files_below(place) == before


def test_a_full_disk_is_said_before_and_while_it_is_written(place, darkroom, monkeypatch):
    typed = ("merge", place / "base.safetensors", place / "one.safetensors", "--out", place / "n.safetensors")
    before = files_below(place)
    usage = shutil.disk_usage
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    assert_refused(darkroom(*typed), "GB free", "n.safetensors takes")
    monkeypatch.setattr(shutil, "disk_usage", usage)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(stream, "_finish", full)
    assert_refused(darkroom(*typed), "could not be written", "No space left")
    assert files_below(place) == before


def test_the_input_may_be_named_in_another_way(place, darkroom):
    (place / "link.safetensors").symlink_to(place / "one.safetensors")
    said = darkroom("convert", place / "one.safetensors", "--out", place / "link.safetensors")
    assert_refused(said, "is an input")
    assert Path(place / "link.safetensors").is_symlink()


MEASURED = """
import resource, sys
from pathlib import Path
import torch
from trainers.tools.stream import TensorFile, rewrite
source = TensorFile(Path(sys.argv[1]))
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
torch.zeros(1000).add(1)
before = peak()
rewrite(source, Path(sys.argv[2]), dict.fromkeys(source.order[::2], lambda tensor: tensor + 1), {})
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="resource is not there")
def test_a_base_is_rewritten_in_the_memory_of_few_tensors(tmp_path):
    big = {f"model.diffusion_model.x.{i}.weight": torch.full((1280, 4096), 0.5).half() for i in range(30)}
    paths = tmp_path / "big.safetensors", tmp_path / "out.safetensors"
    save_file(big, paths[0])
    ended = subprocess.run([sys.executable, "-c", MEASURED, *paths], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    unit = 1 if sys.platform == "darwin" else 1024
    assert int(ended.stdout) * unit < 120e6  # of 315 MB: a tensor in fp16, and in fp32 before and after its change
    merged = load_file(paths[1])
    assert merged.keys() == big.keys()
    assert {float(merged[name][0, 0]) for name in sorted(big)} == {0.5, 1.5}
