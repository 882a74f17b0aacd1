"""A tiny base and nine pictures for runs that fail or die."""

from pathlib import Path

import pytest

from tests.nine_pictures import nine_pictures
from tests.tiny import tiny_pipeline_folder


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    tiny_pipeline_folder(folder)
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    return nine_pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture
def rounds(request: pytest.FixtureRequest) -> int:
    """How often: `--rounds`."""
    return request.config.getoption("--rounds")
