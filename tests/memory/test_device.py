"""What the engine does with memory on a CPU."""

import subprocess
import sys

import pytest

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
