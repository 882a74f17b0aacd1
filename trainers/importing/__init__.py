"""Settings of other trainers, turned into ours: kohya_ss, sd-scripts, OneTrainer. Imports no torch."""
