"""A picture as the model sees it: resized, cropped, mirrored, as numbers."""

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from trainers.data.decoding import open_picture
from trainers.data.types import Crop

__all__ = ["open_picture", "pixels"]


def pixels(image: Image.Image, crop: Crop, flip: bool = False) -> Tensor:
    """An RGB picture -> [3, height, width] of the crop's bucket, fp32 in -1..1; `flip` mirrors left and right.

    Lanczos, which widens its window when shrinking, so that fine detail is averaged and not skipped. Only the part that
    is kept gets resampled: a panorama scaled as a whole would be a hundred times its bucket.
    """
    width, height = crop.bucket.width, crop.bucket.height
    across, down = image.width / crop.scaled[0], image.height / crop.scaled[1]
    right, bottom = min((crop.left + width) * across, image.width), min((crop.top + height) * down, image.height)
    box = (crop.left * across, crop.top * down, right, bottom)
    cut = image.resize((width, height), Image.Resampling.LANCZOS, box=box)
    if flip:
        cut = cut.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    planes = np.asarray(cut).transpose(2, 0, 1).astype(np.float32)  # numpy: torch would start threads in each of ours
    return torch.from_numpy(np.ascontiguousarray(planes / np.float32(127.5) - np.float32(1)))
