"""What the engine does with memory on a CPU."""

import subprocess
import sys

import pytest
import torch

from trainers.config import MemoryConfig
from trainers.errors import UserError
from trainers.memory import card_gb, plan

TWICE = """
import resource
import torch
from trainers.memory import keep_freed_memory
keep_freed_memory()
for _ in range(20):  # until the heap has holes of every kind
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    x = torch.ones(1 << 20)  # 4 MB, 1,024 pages
    y = (x + 1) * 2
    del x, y
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the allocator of glibc")
def test_freed_memory_is_used_again_without_asking_the_system():
    ended = subprocess.run([sys.executable, "-c", TWICE], capture_output=True, text=True, check=True)
    assert int(ended.stdout) < 200


def test_the_card_is_counted_whole_and_a_processor_has_none(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (6 * 2**30, 24 * 2**30))  # free, total
    assert card_gb(torch.device("cuda")) == (18.0, 24.0)
    assert card_gb(torch.device("cpu")) == (0.0, 0.0)


def test_the_peak_of_a_process_is_its_own_and_not_that_of_the_one_which_started_it():
    code = "import torch; from trainers import memory; print(memory.peak_gb(torch.device('cpu')))"
    large = (
        f"import subprocess, sys; held = bytearray(b'1') * (1 << 30); subprocess.run([sys.executable, '-c', {code!r}])"
    )
    said = subprocess.run([sys.executable, "-c", large], capture_output=True, text=True, check=True).stdout
    assert 0.1 < float(said) < 0.9


def test_a_rounded_base_is_not_streamed_on_a_cpu_and_that_is_said_before_anything_slow():
    with pytest.raises(UserError, match="reads the base's file again"):
        plan(MemoryConfig(device="cpu", stream="all", quantize="int8"))
    assert plan(MemoryConfig(device="cpu", stream="auto", quantize="int8")).precision == "fp32"
