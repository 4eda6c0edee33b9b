"""Images of all kinds become RGB arrays, or a sentence."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from satlight.errors import SatlightError
from satlight.images import content_keys, read_image


def encoded(image, kind="PNG", **options):
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def test_modes_become_rgb():
    red = Image.new("RGB", (5, 3), (255, 0, 0))
    for mode, kind in (("RGB", "PNG"), ("CMYK", "JPEG"), ("P", "GIF"), ("RGBA", "WEBP")):
        array = read_image(encoded(red.convert(mode), kind))
        assert array.shape == (3, 5, 3)
        assert array.dtype == np.uint8
        assert abs(array[1, 2].astype(int) - [255, 0, 0]).max() < 30, mode


def test_transparency_is_white():
    assert (read_image(encoded(Image.new("RGBA", (2, 2), (0, 0, 0, 0)))) == 255).all()


def test_16_bits_keep_their_brightness():
    gray = Image.fromarray(np.array([[0, 65535], [32768, 257]], dtype=np.uint16))
    assert read_image(encoded(gray))[:, :, 0].tolist() == [[0, 255], [128, 1]]


def test_the_rotation_of_exif_is_applied():
    image = Image.new("RGB", (6, 2))
    exif = image.getexif()
    exif[0x0112] = 6  # rotated by 90 degrees
    assert read_image(encoded(image, "JPEG", exif=exif.tobytes())).shape == (6, 2, 3)


def test_the_first_frame_of_an_animation_is_read():
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue")]
    array = read_image(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert array[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_large_images_are_scaled_down(kind):
    assert read_image(encoded(Image.new("RGB", (800, 400)), kind), max_side=100).shape == (50, 100, 3)


def bomb():
    """Return a PNG of 60,000 × 60,000 pixels in a few bytes."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"no image", "no image of a known format"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "no image of a known format"),
        (encoded(Image.effect_noise((99, 99), 50))[:2000], "cannot be read"),
        (encoded(Image.effect_noise((99, 99), 50), "JPEG")[:2000], "cannot be read"),
        (encoded(Image.new("RGB", (3, 3)), "PPM"), "no image of a known format"),
        (bomb(), "60000 × 60000 pixels|decompression bomb"),
    ],
)
def test_other_content_is_refused(content, message, tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(SatlightError, match=rf"a\.png.*({message}).*megapixels"):
        read_image(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(SatlightError, match=r"gone\.png does not exist"):
        read_image(tmp_path / "gone.png")
    with pytest.raises(SatlightError, match="IsADirectoryError"):
        read_image(tmp_path)


def test_copies_have_the_same_key(tmp_path):
    paths = [str(tmp_path / name) for name in ("a", "b", "c", "gone")]
    for path, content in zip(paths, (b"1", b"1", b"2"), strict=False):
        with open(path, "wb") as file:
            file.write(content)
    a, b, c, gone = content_keys(paths)
    assert a == b != c
    assert gone == paths[3]
