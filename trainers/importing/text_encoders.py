"""Text encoders that train at rates of their own, or not at all."""

from collections.abc import Sequence
from typing import Any


def settings(rates: Sequence[float], rank: int) -> dict[str, Any]:
    """Our settings for one rate for each text encoder of the base; 0 leaves one as it is.

    Args:
        rank: of those that train beside one that does not.
    """
    trained = [rate for rate in rates if rate > 0]
    if not trained:
        return {"adapter.text_encoder": False}
    one_rate = len(set(trained)) == 1
    found: dict[str, Any] = {"optimizer.text_rate": trained[0]} if one_rate else {"optimizer.text_rates": list(rates)}
    found["adapter.text_encoder"] = True
    if len(trained) < len(rates):
        found["adapter.text_ranks"] = [rank if rate > 0 else 0 for rate in rates]
    return found
