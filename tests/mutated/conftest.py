"""The home that every mutated input finds, and how many inputs there are."""

import pytest

from tests.mutated import scratch
from tests.mutated.scratch import Scratch


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Scratch:
    return scratch.make(tmp_path_factory.mktemp("template") / "inside")
