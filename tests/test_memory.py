"""What the engine does with memory on a CPU."""

import subprocess
import sys

import pytest

TWICE = """
import resource
import torch
from trainers.memory import keep_freed_memory
keep_freed_memory()
torch.ones(1 << 21)  # 8 MB, 2,048 pages
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
torch.ones(1 << 21)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the allocator of glibc")
def test_freed_memory_is_used_again_without_asking_the_system():
    ended = subprocess.run([sys.executable, "-c", TWICE], capture_output=True, text=True, check=True)
    assert int(ended.stdout) < 200
