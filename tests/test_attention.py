"""Attention kernels: the fastest correct one runs, a broken one is told of and left alone."""

import sys
from collections import Counter
from contextlib import ExitStack

import pytest
import torch
from torch.nn.attention import SDPBackend
from torch.nn.functional import scaled_dot_product_attention

from tests.tiny import tiny_pipeline_folder, tiny_unet
from trainers import attention, attention_kernels, config_io, memory
from trainers.bench.loops import engine_step
from trainers.config import ModelConfig
from trainers.families.base import Conditioning
from trainers.families.sd15 import SD15

CPU = torch.device("cpu")
SHAPES = Counter({((2, 4, 64, 16), (2, 4, 64, 16)): 3, ((2, 4, 64, 16), (2, 4, 77, 16)): 3})


def broken(monkeypatch, name: str, kernel) -> None:
    real = attention_kernels._backend
    monkeypatch.setattr(attention_kernels, "_backend", lambda wanted: kernel if wanted == name else real(wanted))


def raising(*_):
    raise RuntimeError("CUDA error: no kernel image is available\nfor execution")


def refusing(*_):
    raise RuntimeError("No available kernel. Aborting execution.")


def not_a_number(q, k, v):
    return scaled_dot_product_attention(q, k, v) * float("nan")


def wrong_gradient(q, k, v):
    return scaled_dot_product_attention(q, k.detach(), v) + 0.0 * k.sum()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_kernels_of_this_cpu_are_correct(dtype):
    assert attention_kernels.probe(CPU, dtype, SHAPES) == attention_kernels.Verdict(("flash", "math"), {})


@pytest.mark.parametrize("kernel", [raising, not_a_number, wrong_gradient])
def test_a_broken_kernel_is_warned_of_and_not_used(monkeypatch, kernel, caplog):
    broken(monkeypatch, "flash", kernel)
    caplog.set_level("INFO")
    with ExitStack() as stack:
        (said,) = attention.set_attention(tiny_unet(), "sdpa", CPU, SHAPES, None, stack)
        q = torch.ones(1, 1, 8, 16)
        assert torch._fused_sdp_choice(q, q, q) == SDPBackend.MATH.value
    assert said.message == "The attention kernel flash does not work here and is not used." and said.hint
    assert "attention runs on SDPA math, on cpu in float32" in caplog.text
    assert torch._fused_sdp_choice(q, q, q) == SDPBackend.FLASH_ATTENTION.value  # as before


def test_a_kernel_that_does_not_take_a_shape_is_not_broken(monkeypatch):
    broken(monkeypatch, "flash", refusing)
    assert attention_kernels.probe(CPU, torch.float32, SHAPES).broken == {}


def test_a_kernel_can_be_forced(caplog):
    caplog.set_level("INFO")
    with ExitStack() as stack:
        assert attention.set_attention(tiny_unet(), "flash", CPU, SHAPES, None, stack) == []
        q = torch.ones(1, 1, 8, 16)
        assert torch._fused_sdp_choice(q, q, q) == SDPBackend.FLASH_ATTENTION.value
    assert "attention runs on SDPA flash, on cpu in float32" in caplog.text


def test_a_forced_kernel_comes_before_the_fastest_which_serves_the_shapes_it_does_not_take(monkeypatch):
    monkeypatch.setattr(attention_kernels, "ON_CPU", tuple(attention_kernels.BACKENDS))
    monkeypatch.setattr(attention, "verdict", lambda *_: attention_kernels.Verdict(("flash", "math"), {}))

    def picky(q, k, v):
        if k.shape[-2] == 77:
            raise RuntimeError("No available kernel. Aborting execution.")
        return scaled_dot_product_attention(q, k, v)

    broken(monkeypatch, "cudnn", picky)
    told = []
    monkeypatch.setattr(attention, "held_to", lambda names: told.append(names) or ExitStack)
    assert attention.choose(tiny_unet(), "cudnn", CPU, SHAPES, None).said == []
    assert told == [["cudnn", "flash", "math", "math"]]


@pytest.mark.parametrize(
    ("name", "device", "words"),
    [("efficient", "cpu", "the device cpu"), ("cudnn", "cpu", "cpu"), ("flash", "mps", "mps")],
)
def test_a_forced_kernel_that_this_device_lacks_is_warned_of_and_the_run_goes_on_with_sdpa(name, device, words):
    with ExitStack() as stack:
        (said,) = attention.set_attention(tiny_unet(), name, torch.device(device), SHAPES, None, stack)
        q = torch.ones(1, 1, 8, 16)
        assert torch._fused_sdp_choice(q, q, q) == SDPBackend.FLASH_ATTENTION.value
    assert said.message == f"The attention kernel {name} does not work here and is not used." and words in said.hint


@pytest.mark.parametrize("kernel", [raising, not_a_number, refusing])
def test_a_forced_kernel_that_fails_is_warned_of_once_and_the_run_goes_on_with_sdpa(monkeypatch, kernel):
    broken(monkeypatch, "flash", kernel)
    with ExitStack() as stack:
        (said,) = attention.set_attention(tiny_unet(), "flash", CPU, SHAPES, None, stack)
    assert said.message == "The attention kernel flash does not work here and is not used." and said.hint


def test_without_xformers_attention_runs_on_sdpa_and_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "xformers.ops", None)
    with ExitStack() as stack:
        (said,) = attention.set_attention(tiny_unet(), "xformers", CPU, SHAPES, None, stack)
    assert said.what == "Attention runs on SDPA flash, not xformers" and "xformers" in said.why


XFORMERS = {  # what its file `ops` has -> what is told of it
    "raise ImportError('DLL load failed')": "DLL load failed",
    "": "memory_efficient_attention",
    "def memory_efficient_attention(q, k, v): raise NotImplementedError('No operator found')": "No operator found",
    "def memory_efficient_attention(q, k, v): return 2 * (q + k.mean() + v.mean())": "Its result is wrong by",
}


@pytest.mark.parametrize("ops", XFORMERS)
def test_with_an_xformers_that_does_not_work_attention_runs_on_sdpa_and_says_so(tmp_path, monkeypatch, ops):
    (tmp_path / "xformers").mkdir()
    (tmp_path / "xformers" / "__init__.py").touch()
    (tmp_path / "xformers" / "ops.py").write_text(ops, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("xformers", "xformers.ops"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    unet, q = tiny_unet(), torch.ones(1, 1, 8, 16)
    before = list(map(type, unet.attn_processors.values()))
    with ExitStack() as stack:
        (said,) = attention.set_attention(unet, "xformers", CPU, SHAPES, None, stack)
        assert torch._fused_sdp_choice(q, q, q) == SDPBackend.FLASH_ATTENTION.value
    assert said.what == "Attention runs on SDPA flash, not xformers" and XFORMERS[ops] in said.why
    assert list(map(type, unet.attn_processors.values())) == before
    for name in ("xformers", "xformers.ops"):  # the next one is another
        sys.modules.pop(name, None)


def test_the_shapes_are_those_of_a_real_step():
    unet = tiny_unet()
    told = Conditioning(torch.randn(2, 24, unet.config.cross_attention_dim))
    counted = attention.shapes_of(SD15, unet, (2, 4, 8, 8), told)
    with attention.Shapes() as real, torch.no_grad():
        SD15.denoise(unet, torch.randn(2, 4, 8, 8), torch.zeros(2, dtype=torch.long), told)
    assert counted == real.seen and sum(counted.values()) > 0


def test_the_step_that_is_tried_attends_as_a_run_does_and_leaves_no_trace(tmp_path, monkeypatch):
    base, seen = str(tiny_pipeline_folder(tmp_path)), []
    q = torch.ones(1, 1, 8, 16)
    family, components = SD15, SD15.load(ModelConfig(base=base, family="sd15"), torch.float32)
    config = config_io.parse({"model": {"base": base}, "memory": {"device": "cpu", "attention": "math"}})
    step = engine_step(family, components, config, memory.plan(config.memory), 2)
    step.denoiser.register_forward_hook(lambda *_: seen.append(torch._fused_sdp_choice(q, q, q)))
    step(0)
    assert seen == [SDPBackend.MATH.value]
    assert torch._fused_sdp_choice(q, q, q) == SDPBackend.FLASH_ATTENTION.value


@pytest.mark.gpu
def test_what_was_found_on_a_gpu_is_remembered(tmp_path, monkeypatch):
    shapes = Counter({((2, 8, 1024, 40), (2, 8, 1024, 40)): 3})
    with ExitStack() as stack:
        attention.set_attention(tiny_unet().cuda().half(), "sdpa", torch.device("cuda"), shapes, tmp_path, stack)
    assert (tmp_path / attention_kernels.FILE).is_file()
    monkeypatch.setattr(attention_kernels, "probe", None)  # to call it would raise
    with ExitStack() as stack:
        attention.set_attention(tiny_unet().cuda().half(), "sdpa", torch.device("cuda"), shapes, tmp_path, stack)
