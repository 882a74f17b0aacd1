"""Previews are decoded whole where that fits, and else within the memory that is left."""

import pytest
import torch

from tests.tiny import tiny_vae
from trainers.families.sd15 import SD15
from trainers.memory.meter import Meter
from trainers.memory.tiles import LEAST, tile, tiled

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
SHAPE = (1, 4, 64, 48)  # pictures of 128 x 96 pixels


@pytest.fixture(scope="module")
def vae():
    torch.manual_seed(0)
    return tiny_vae().eval()


@torch.no_grad()
def decoded(vae, space):
    """The picture, and the most bytes that decoding held on a CPU, whose library copies what a convolution reads."""
    latents = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))
    with tiled(SD15, vae, SHAPE, space), Meter() as meter:
        picture = SD15.decode_image(vae, latents)
    return picture, meter.peak + meter.largest


def test_where_the_whole_picture_fits_nothing_is_different(vae):
    with torch.no_grad():
        usual = SD15.decode_image(vae, torch.randn(SHAPE, generator=torch.Generator().manual_seed(1)))
    picture, peak = decoded(vae, float("inf"))
    assert torch.equal(picture, usual)
    assert torch.equal(decoded(vae, 1.1 * peak)[0], usual)


def test_where_it_does_not_fit_it_is_decoded_in_tiles_that_do(vae):
    whole, peak = decoded(vae, float("inf"))
    assert tile(SD15, vae, SHAPE, 0.7 * peak, CPU) == 32
    picture, held = decoded(vae, 0.7 * peak)
    assert held <= 0.7 * peak
    assert picture.shape == whole.shape and not torch.equal(picture, whole)
    assert torch.equal(decoded(vae, float("inf"))[0], whole)  # the VAE is as it was


def test_a_card_needs_no_copies_of_what_is_convolved(vae):
    with torch.no_grad(), Meter() as meter:
        SD15.decode_image(vae, torch.randn(SHAPE))
    assert tile(SD15, vae, SHAPE, meter.peak, CUDA) is None
    assert tile(SD15, vae, SHAPE, meter.peak, CPU) is not None


def test_no_tile_is_smaller_than_the_least(vae):
    assert tile(SD15, vae, SHAPE, 1.0, CPU) == LEAST
