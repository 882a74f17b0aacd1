"""The engine is loaded without scipy, which is there all the same for whoever asks for it."""

import subprocess
import sys

import pytest

PROGRAM = """
import gc, importlib, sys
importlib.import_module(sys.argv[1])
assert "scipy" not in sys.modules and gc.isenabled()
import scipy.fft
from trainers.quick_import import quick_import
with quick_import():
    import scipy as known
assert known is scipy and sys.modules["scipy"] is scipy
"""


@pytest.mark.parametrize("module", ["train", "check", "export_run", "sample", "compare", "bench.loops", "bench.start"])
def test_the_engine_is_loaded_without_scipy(module):
    command = [sys.executable, "-c", PROGRAM, f"trainers.{module}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_engine_is_loaded_after_transformers_as_well():
    command = [sys.executable, "-c", "import transformers.modeling_utils, trainers.train"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_engine_is_loaded_where_something_cannot_do_without_scipy():
    wanting = (
        "import sys\n"
        "class Wanting:\n"
        "    def find_spec(name, *_):\n"
        "        if name == 'peft.tuners.lora': import scipy.fft\n"
        "sys.meta_path.insert(0, Wanting)\n"
        "import trainers.train\n"
        "assert sys.modules['scipy'].fft\n"
    )
    done = subprocess.run([sys.executable, "-c", wanting], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
