"""Loads the engine's libraries without what it never uses: they are most of the wait before a run's first event.

Measured for `import trainers.train`, torch 2.13, one core of an AMD EPYC: 9.5 and 10.5 s, and so 6.1 to 7.3 s.
Everything begins so that imports trainers.libraries first.
"""

import contextlib
import gc
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def quick_import() -> Iterator[None]:
    """For the import of peft, diffusers and transformers."""
    with without_collecting(), _without("scipy"):
        yield


@contextlib.contextmanager
def without_collecting() -> Iterator[None]:
    """What an import makes stays: to look for garbage among it again and again finds nothing."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()


@contextlib.contextmanager
def _without(package: str) -> Iterator[None]:
    """As if it were not installed, unless it is loaded already, or what looks for it once and for all.

    With it came a seventh of all modules, for object detection and for schedulers of the beta distribution.
    """
    if {package, "diffusers", "transformers"} & sys.modules.keys():
        yield
        return
    sys.modules[package] = None
    try:
        yield
    finally:
        del sys.modules[package]
