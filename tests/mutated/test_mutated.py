"""Mutated inputs for every parser: refused by a sentence, or read; never a traceback, a hang, or a write elsewhere.

A few of each kind run in the default suite, always the same ones. `--rounds` times 1,000 run, other ones each time, in

    python -m pytest tests/mutated -m slow --rounds 10

which are 10,000. `--hypothesis-seed=N` chooses which; the input that breaks a promise is the file `last input`.
"""

import contextlib
import io
import logging
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.mutated.bites import bitten
from tests.mutated.guard import guarded
from tests.mutated.kinds import KINDS, Kind
from tests.mutated.refusals import refused
from tests.mutated.scratch import Bench, Scratch
from tests.mutated.shapes import twisted

FEW, MANY = 200, 1000  # inputs of all kinds together
KEPT = "somebody else's"


@pytest.mark.parametrize("name", KINDS)
def test_a_few_mutated_inputs_break_no_promise(name, template, tmp_path):
    _hunt(name, FEW, template, tmp_path, derandomize=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_many_mutated_inputs_break_no_promise(name, template, tmp_path, request):
    _hunt(name, MANY * request.config.getoption("--rounds"), template, tmp_path, derandomize=False)


def _hunt(name: str, inputs: int, template: Scratch, folder: Path, derandomize: bool) -> None:
    """Feed so many inputs, shared out among the kinds, each to a home of its own."""
    kind = KINDS[name]
    seeds = tuple(kind.seeds(template))
    assert seeds and all(seeds), "there is nothing to mutate"
    count = math.ceil(inputs * kind.share / sum(one.share for one in KINDS.values()))
    bench = Bench(template, folder)
    outside = folder / "outside" / "kept.txt"
    outside.parent.mkdir()
    outside.write_text(KEPT, "utf-8")
    for seed in seeds:
        refused.clear()
        with silence():
            kind.feed(bench.fresh(), seed)
        assert not refused, "a whole document is read; and what the first call loads is loaded now"

    @settings(
        max_examples=count,
        derandomize=derandomize,
        database=None,
        deadline=None,
        phases=[Phase.generate],  # what fails is the last input, as it is: to shrink it would take minutes
        suppress_health_check=list(HealthCheck),
    )
    @given(documents(kind, seeds))
    def survives(document: bytes) -> None:
        made = bench.fresh()
        (folder / "last input").write_bytes(document)
        with guarded(made.folder), silence():
            kind.feed(made, document)

    survives()
    assert outside.read_text("utf-8") == KEPT and [one.name for one in outside.parent.iterdir()] == [outside.name]


@st.composite
def documents(draw: st.DrawFn, kind: Kind, seeds: tuple[bytes, ...]) -> bytes:
    """A whole document, its structure twisted, or bitten, or both."""
    data = draw(st.sampled_from(seeds))
    how = draw(st.sampled_from(("bitten", "twisted", "twisted", "both"))) if kind.shape else "bitten"
    if how != "bitten":
        data = draw(twisted(kind.shape, data))
    return draw(bitten(data, seeds)) if how != "twisted" else data


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """What commands print goes nowhere, but has to be printable; warnings of libraries are no fault."""
    logging.disable(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(io.TextIOWrapper(io.BytesIO(), "utf-8")):
            yield
    finally:
        logging.disable(logging.NOTSET)
