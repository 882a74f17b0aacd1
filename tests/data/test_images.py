"""Pictures of every kind arrive upright, in sRGB, on white, at the right brightness."""

import io

import numpy as np
import pillow_heif
import pytest
import torch
from PIL import Image, ImageCms, ImageOps

from tests.nasty_folder import picture, rotated
from trainers.data.buckets import crop_for
from trainers.data.decoding import Unreadable, decode, inspect
from trainers.data.images import open_picture, pixels
from trainers.data.types import Bucket
from trainers.errors import UserError

pillow_heif.register_heif_opener()


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def both_ways(data: bytes) -> Image.Image:
    """The decoded picture, after checking that the scan sees the same size."""
    image = decode(data)
    assert image.mode == "RGB" and inspect(data) == image.size
    return image


def difference(a: Image.Image, b: Image.Image) -> float:
    assert a.size == b.size
    return float(np.abs(np.asarray(a, np.float32) - np.asarray(b, np.float32)).mean())


@pytest.mark.parametrize(("side", "size"), [(0, (1024, 512)), (320, (512, 256)), (512, (512, 256)), (513, (1024, 512))])
def test_a_jpeg_can_come_smaller_and_never_smaller_than_asked(side, size):
    smooth = Image.linear_gradient("L").resize((1024, 512)).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    data = encoded(smooth, "JPEG", quality=95, exif=exif)
    small = decode(data, side)
    assert small.size == size[::-1]
    assert difference(small, decode(data).resize(small.size, Image.Resampling.BOX)) < 1
    assert decode(encoded(smooth, "PNG"), side).size == smooth.size


@pytest.mark.parametrize(
    ("form", "tolerance"),
    [("PNG", 0), ("BMP", 0), ("TIFF", 0), ("GIF", 12), ("JPEG", 4), ("WEBP", 4), ("AVIF", 4), ("HEIF", 4)],
)
def test_every_format_comes_back_as_the_same_picture(form, tolerance):
    source = picture(70, 50, 1)
    assert difference(both_ways(encoded(source, form)), source) <= tolerance


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "TIFF", "AVIF", "HEIF"])
@pytest.mark.parametrize("orientation", [2, 3, 4, 5, 6, 7, 8])
def test_a_turned_picture_is_set_upright_exactly_once(form, orientation):
    source = picture(64, 32, 2)
    held = source.copy()
    held.getexif()[0x0112] = orientation
    upright = ImageOps.exif_transpose(held)
    data = encoded(source, form, exif=rotated(orientation))
    assert difference(both_ways(data), upright) < 8  # HEIF at these few pixels; a wrong turn differs by 60


def test_a_broken_exif_block_does_not_cost_the_picture():
    source = picture(64, 32, 2)
    data = encoded(source, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert both_ways(data).size == (64, 32)


def test_transparency_of_every_kind_lies_on_white():
    source = Image.new("RGBA", (32, 32), (255, 0, 0, 0))
    source.paste((0, 0, 255, 255), (16, 0, 32, 32))
    source.paste((0, 0, 255, 128), (0, 16, 16, 32))
    image = both_ways(encoded(source, "PNG"))
    assert [image.getpixel(at) for at in ((0, 0), (20, 0), (0, 20))] == [(255, 255, 255), (0, 0, 255), (127, 127, 255)]
    for image in (
        both_ways(encoded(source.quantize(8), "PNG")),
        both_ways(encoded(source.convert("LA"), "PNG")),
        both_ways(encoded(source, "WEBP", lossless=True)),
        both_ways(encoded(source, "GIF")),
    ):
        assert image.getpixel((0, 0)) == (255, 255, 255)
    indexed = Image.new("P", (16, 16), 1)
    indexed.putpalette([0, 255, 0, 255, 0, 0])
    assert both_ways(encoded(indexed, "PNG", transparency=1)).getpixel((3, 3)) == (255, 255, 255)
    keyed = Image.new("RGB", (16, 16), (1, 2, 3))
    assert both_ways(encoded(keyed, "PNG", transparency=(1, 2, 3))).getpixel((3, 3)) == (255, 255, 255)


RAMP = np.linspace(0, 1, 256, dtype=np.float64).reshape(16, 16)


@pytest.mark.parametrize(
    ("values", "form"),
    [
        ((RAMP * 65535).astype(np.uint16), "PNG"),
        ((RAMP * 65535).astype(np.uint16), "TIFF"),
        ((RAMP * 65535).astype(np.int32), "TIFF"),
        (RAMP.astype(np.float32), "TIFF"),
        ((RAMP * 255).astype(np.float32), "TIFF"),
        ((RAMP * 65535).astype(np.float32), "TIFF"),
        ((RAMP * 4 - 2).astype(np.float32), "TIFF"),
    ],
)
def test_deep_greyscale_is_scaled_and_not_clipped(values, form):
    image = both_ways(encoded(Image.fromarray(values), form))
    expected = np.rint(RAMP * 255)
    assert np.abs(np.asarray(image, np.float64) - expected[..., None]).max() <= 1


def test_a_dark_16_bit_picture_stays_dark():
    image = both_ways(encoded(Image.fromarray(np.full((16, 16), 200, np.uint16)), "PNG"))
    assert image.getpixel((0, 0)) == (1, 1, 1)


def test_cmyk_has_its_true_colours_and_not_their_negative():
    source = Image.new("RGB", (32, 32), (200, 40, 60)).convert("CMYK")
    for form in ("JPEG", "TIFF"):
        assert np.abs(np.array(both_ways(encoded(source, form)).getpixel((8, 8))) - (200, 40, 60)).max() <= 3


def test_adobe_files_with_inverted_cmyk_are_read_right():
    data = encoded(Image.new("CMYK", (32, 32), (0, 255, 255, 0)), "JPEG", quality=95)
    assert b"Adobe" in data  # Pillow writes CMYK as Photoshop does: inverted, with the marker
    red, green, blue = both_ways(data).getpixel((8, 8))
    assert red > 250 and green < 5 and blue < 5


def test_grey_black_and_white_and_lab_become_rgb():
    assert both_ways(encoded(Image.new("1", (16, 16), 1), "PNG")).getpixel((0, 0)) == (255, 255, 255)
    assert both_ways(encoded(Image.new("L", (16, 16), 90), "JPEG")).getpixel((0, 0)) == (90, 90, 90)
    lab = ImageCms.profileToProfile(
        Image.new("RGB", (16, 16), (200, 40, 60)),
        ImageCms.createProfile("sRGB"),
        ImageCms.createProfile("LAB"),
        outputMode="LAB",
    )
    assert np.abs(np.array(both_ways(encoded(lab, "TIFF")).getpixel((0, 0))) - (200, 40, 60)).max() <= 3


def test_an_embedded_colour_profile_is_honoured():
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = srgb.replace(b"rXYZ", b"tmp_").replace(b"bXYZ", b"rXYZ").replace(b"tmp_", b"bXYZ")  # red and blue changed
    swapped = swapped.replace(b"s\0R\0G\0B", b"o\0t\0h\0r").replace(b"sRGB", b"othr")  # and no longer called sRGB
    source = Image.new("RGB", (16, 16), (255, 0, 0))
    plain, same, other = (
        both_ways(encoded(source, "PNG", icc_profile=p)).getpixel((0, 0)) for p in (None, srgb, swapped)
    )
    assert plain == same == (255, 0, 0)
    assert np.abs(np.array(other) - (0, 0, 255)).max() <= 2
    for unfit in (lab, b"nonsense"):
        assert both_ways(encoded(source, "PNG", icc_profile=unfit)).getpixel((0, 0)) == (255, 0, 0)


def test_the_first_frame_of_an_animation_is_taken():
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue", "lime")]
    for form in ("GIF", "WEBP", "PNG"):
        data = encoded(frames[0], form, save_all=True, append_images=frames[1:], duration=100)
        assert both_ways(data).getpixel((5, 5))[0] > 240


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "AVIF", "HEIF"])
def test_a_picture_cut_off_anywhere_is_refused_by_the_scan(form):
    rng = np.random.default_rng(0)
    data = encoded(Image.fromarray(rng.integers(0, 256, (120, 160, 3), dtype=np.uint8)), form)
    for share in (0.1, 0.5, 0.9):
        with pytest.raises(Unreadable, match="damaged|not a picture"):
            inspect(data[: int(len(data) * share)])


def test_a_picture_of_180_megapixels_is_no_bomb():
    data = encoded(Image.new("1", (20_000, 9_000)), "PNG", compress_level=1)
    assert inspect(data) == (20_000, 9_000)


def test_a_picture_beyond_memory_is_refused_in_words():
    data = bytearray(encoded(Image.new("1", (16, 16)), "BMP"))
    data[18:26] = (100_000).to_bytes(4, "little") * 2  # width and height in the header
    with pytest.raises(Unreadable, match="100000x100000"):
        inspect(bytes(data))


def test_programs_in_disguise_are_not_run():
    with pytest.raises(Unreadable, match="not a picture"):
        inspect(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\nshowpage\n")


def test_a_picture_changed_since_the_scan_is_noticed(tmp_path):
    file = tmp_path / "a.png"
    picture(32, 32, 1).save(file)
    assert open_picture(file).size == (32, 32)
    with pytest.raises(UserError, match="a.png was changed"):
        open_picture(file, content_hash="0" * 64)
    file.unlink()
    with pytest.raises(UserError, match="a.png could be read before"):
        open_picture(file)


# --- pixels ---


def test_black_and_white_are_minus_one_and_one():
    crop = crop_for((8, 4), Bucket(8, 4))
    image = Image.new("RGB", (8, 4), "black")
    image.paste("white", (4, 0, 8, 4))
    found = pixels(image, crop)
    assert found.shape == (3, 4, 8) and found.dtype == torch.float32
    torch.testing.assert_close(found[:, :, :4], -torch.ones(3, 4, 4))
    torch.testing.assert_close(found[:, :, 4:], torch.ones(3, 4, 4))


def test_flip_mirrors_left_and_right_only():
    image = picture(80, 60, 3)
    crop = crop_for(image.size, Bucket(64, 64))
    torch.testing.assert_close(pixels(image, crop, True), pixels(image, crop).flip(-1))


@pytest.mark.parametrize(("size", "bucket"), [((400, 300), (64, 64)), ((97, 41), (80, 48)), ((50, 60), (64, 64))])
def test_cropping_before_resampling_equals_cropping_after(size, bucket):
    image = picture(*size, 4)
    crop = crop_for(size, Bucket(*bucket))
    whole = image.resize(crop.scaled, Image.Resampling.LANCZOS)
    cut = whole.crop((crop.left, crop.top, crop.left + bucket[0], crop.top + bucket[1]))
    expected = torch.from_numpy(np.array(cut)).permute(2, 0, 1) / 127.5 - 1
    assert (pixels(image, crop) - expected).abs().max() < 3 / 127.5


def test_shrinking_averages_fine_detail():
    stripes = np.zeros((256, 256, 3), np.uint8)
    stripes[:, ::2] = 255
    found = pixels(Image.fromarray(stripes), crop_for((256, 256), Bucket(32, 32)))
    assert found.abs().max() < 0.1  # grey, not the black or white that skipping pixels would give
