"""Measuring a training step."""

from trainers import threads

threads.wait_passively()  # as the engine does, before torch is loaded: other threads have other times
