"""Gradio is loaded without pandas, which is there all the same as soon as somebody asks for it."""

import gc
import subprocess
import sys

from app.quick_import import quick_import

PROGRAM = """
import gc, sys
from app.quick_import import quick_import

with quick_import():
    import gradio
assert "pandas" not in sys.modules and gc.isenabled()
import gradio.caching
later = gradio.caching.pd
assert later.DataFrame({"a": [1, 2]}).a.sum() == 3
import pandas
assert pandas is not later and later.Series is pandas.Series
with quick_import():
    import pandas as known
assert known is pandas
"""


def test_gradio_is_loaded_without_pandas_until_it_is_asked_for_something():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_garbage_is_collected_as_before_where_it_was_not():
    gc.disable()
    try:
        with quick_import():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
