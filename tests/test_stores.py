"""The data of a run: which captions a step sees."""

import pytest
import torch

from tests.tiny import tiny_pipeline_folder
from trainers import config_io, memory
from trainers.bench.loops import engine_step
from trainers.families.registry import find_family


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_the_set_share_of_views_has_an_empty_caption(tmp_path, share):
    base = tiny_pipeline_folder(tmp_path / "base")
    data = {"batch_size": 4, "caption_dropout": share}
    config = config_io.parse({"model": {"base": str(base)}, "memory": {"device": "cpu"}, "data": data})
    plan, family = memory.plan(config.memory), find_family(config.model)
    feed = engine_step(family, family.load(config.model, plan.dtype), config, plan, 1).feed
    rows = torch.cat([feed.batch(number, torch.Generator()).captions for number in range(1000)])
    empty = (rows == feed.text.row[""]).float().mean().item()
    assert empty == pytest.approx(share, abs=0.03)  # 4,000 views: three standard deviations are 0.02
