"""Devices of every maker: what is chosen for them, and what is honestly said of them."""

from types import SimpleNamespace

import pytest
import torch

from app import hardware
from tests.app.test_views import GOOD, GPU
from trainers import devices, memory
from trainers.capabilities import precision_of, untried
from trainers.config import MemoryConfig
from trainers.errors import UserError


@pytest.mark.parametrize(
    ("kind", "facts", "precision"),
    [
        ("cuda", {"capability": (8, 6), "name": "RTX 3060"}, "bf16"),
        ("cuda", {"capability": (7, 5), "name": "RTX 2080"}, "fp16"),
        ("cuda", {"capability": (7, 5), "name": "GTX 1660 Ti"}, "fp32"),
        ("rocm", {"chip": "gfx1100"}, "bf16"),
        ("rocm", {"chip": "gfx90a:sramecc+:xnack-"}, "bf16"),
        ("rocm", {"chip": "gfx1030"}, "fp16"),
        ("xpu", {}, "bf16"),
        ("mps", {}, "fp32"),
        ("cpu", {}, "fp32"),
    ],
)
def test_the_format_is_one_that_the_device_computes_fast(kind, facts, precision):
    assert precision_of(kind, **facts) == precision


@pytest.mark.parametrize("best", ["cuda", "xpu", "mps", "cpu"])
def test_auto_takes_the_best_device_there_is(monkeypatch, best):
    kinds = ("cuda", "xpu", "mps", "cpu")
    there = {kind: kinds.index(kind) >= kinds.index(best) for kind in kinds}
    monkeypatch.setattr(devices, "available", lambda: there)
    monkeypatch.setattr(devices, "precision", lambda device: "fp32")
    assert memory.plan(MemoryConfig()).device.type == best


def test_only_on_cuda_is_a_copy_not_waited_for():  # on a Mac it reads memory that is another tensor's by then
    kinds = ("cuda", "xpu", "mps", "cpu")
    assert [kind for kind in kinds if devices.copies_aside(torch.device(kind))] == ["cuda"]


def test_a_device_that_is_not_there_is_a_sentence(monkeypatch):
    monkeypatch.setattr(torch.xpu, "is_available", lambda: False)
    with pytest.raises(UserError, match="memory.device is xpu, but no such device is usable here"):
        memory.plan(MemoryConfig(device="xpu"))


def test_amds_cards_are_known_from_nvidias(monkeypatch):
    monkeypatch.setattr(torch.version, "hip", "7.0")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(gcnArchName="gfx1030"))
    assert devices.kind_of(torch.device("cuda")) == "rocm"
    assert devices.precision(torch.device("cuda")) == "fp16"


def test_a_cpu_is_asked_nothing_that_only_cards_know():
    cpu = torch.device("cpu")
    devices.synchronize(cpu)
    devices.forget_peak(cpu)
    assert devices.peak_bytes(cpu) is None and devices.free_bytes(cpu) is None
    assert devices.name_of(cpu) == "cpu" and devices.precision(cpu) == "fp32"


@pytest.mark.parametrize(
    ("facts", "device", "maker"),
    [
        ({"gpus": [{**GPU, "name": "RX 7900", "chip": "gfx1100"}], "rocm_build": "7.0"}, "RX 7900", "AMD"),
        ({"gpus": [], "xpu": "Intel Arc A770"}, "Intel Arc A770", "Intel"),
        ({"gpus": [], "mps": True}, "Apple GPU (mps)", "Apple"),
    ],
)
def test_the_doctor_says_what_has_not_been_tried(facts, device, maker):
    use = hardware.will_use({**GOOD, "torch": {"version": "2.13", **facts}})
    assert use["device"] == device and f"not been tried on {maker} graphics" in use["but"]
    assert "but" not in hardware.will_use(GOOD) and untried("cuda") == untried("cpu") == ""


@pytest.mark.parametrize(
    ("installed", "loads", "words"),
    [("", None, "not installed, nor needed"), ("0.1", "DLL load failed", "does not load"), ("0.1", True, "by choice")],
)
def test_the_doctor_has_a_line_on_xformers(installed, loads, words):
    found = {**GOOD, "libraries": {**GOOD["libraries"], "xformers": installed}}
    found["torch"] = {**GOOD["torch"], "xformers": loads}
    assert words in hardware.will_use(found)["attention"]


@pytest.mark.parametrize(
    ("ops", "words"),
    [
        ("raise ImportError('DLL load failed while importing _C')", "DLL load failed while importing _C"),
        ("", "no attribute 'memory_efficient_attention'"),
        ("import os; os._exit(139)", "xformers.ops ends the program that loads it"),
    ],
)
def test_an_xformers_whose_attention_does_not_load_is_told_of(tmp_path, monkeypatch, ops, words):
    (tmp_path / "xformers").mkdir()
    (tmp_path / "xformers" / "__init__.py").touch()
    (tmp_path / "xformers" / "ops.py").write_text(ops, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    found = {**GOOD, "torch": {**GOOD["torch"], "xformers": hardware.probe_torch()["xformers"]}}
    assert hardware.will_use(found)["attention"].endswith("xformers does not load")
    (message,) = (one.message for one in hardware.findings(found) if "xformers" in one.message)
    assert message.startswith("xformers is installed but does not load: ") and words in message
    (tmp_path / "xformers" / "ops.py").write_text("def memory_efficient_attention(): pass", encoding="utf-8")
    assert hardware.probe_torch()["xformers"] is True
