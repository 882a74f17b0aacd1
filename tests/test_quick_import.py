"""The engine is loaded without scipy, which is there all the same for whoever asks for it."""

import subprocess
import sys

PROGRAM = """
import gc, sys
import trainers.train
assert "scipy" not in sys.modules and gc.isenabled()
import scipy.fft
from trainers.quick_import import quick_import
with quick_import():
    import scipy as known
assert known is scipy and sys.modules["scipy"] is scipy
"""


def test_the_engine_is_loaded_without_scipy():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
