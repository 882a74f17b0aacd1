"""One finished run, as its settings and facts."""

from trainers.config import TrainConfig
from trainers.export.metadata import RunFacts

CONFIG = TrainConfig(
    model={"base": "/home/someone/models/base.safetensors", "clip_skip": 2},
    adapter={"rank": 4, "alpha": 2.0, "text_encoder": True, "text_rank": 3, "targets": "full"},
    data={"folders": ("/home/someone/pictures",), "trigger": "zib", "kind": "object", "batch_size": 2},
    saving={"name": "a"},
)
FACTS = RunFacts(
    steps=20,
    total_steps=40,
    epochs=2,
    pictures=9,
    held_out=2,
    batches_per_epoch=5,
    resolution=(64, 64),
    buckets={(64, 64): 5, (64, 48): 4},
    bucket_sides=(32, 128),
    captions={"pictures": ["zib, red, round", "zib, red"]},
    folder_repeats={"pictures": 3},
    base_name="base.safetensors",
    base_path=None,
    prediction="epsilon",
    zero_terminal_snr=False,
    started=1.7e9,
    finished=1.7e9 + 60,
    session="123",
    device_precision="bf16",
    optimizer="torch.optim.adamw.AdamW(weight_decay=0.01)",
)


def run_config(dtype: str = "fp16", **changes: dict) -> TrainConfig:
    saving = CONFIG.saving.model_copy(update={"dtype": dtype})
    return CONFIG.model_copy(update={"saving": saving, **changes})
