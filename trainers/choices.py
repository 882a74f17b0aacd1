"""The names a setting may take where engine code provides them, known without importing that code."""

ADAPTERS = ("lora", "locon", "dora", "loha", "lokr")
LOSSES = ("l2", "l1", "huber", "smooth_l1")
WEIGHTINGS = ("none", "min_snr", "soft_min_snr", "debiased", "p2")
OPTIMIZERS = ("adamw", "adamw8bit", "prodigy", "adafactor", "lion", "schedulefree")
SCHEDULES = ("constant", "linear", "cosine", "cosine_restarts", "polynomial")

CHOICES: dict[str, tuple[str, ...]] = {
    "adapter.type": ADAPTERS,
    "loss.type": LOSSES,
    "loss.weighting": WEIGHTINGS,
    "optimizer.type": OPTIMIZERS,
    "schedule.type": SCHEDULES,
}
