"""The one place that opens images: files and bytes in, checked RGB arrays out.

Shape legend: H height, W width, in pixels.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import re
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import numpy as np

from satlight.errors import SatlightError

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
"""Formats that are opened; a file of another one is refused before it is decoded."""

MAX_PIXELS = 64_000_000
"""Larger images are refused before they are decoded: a file of a few kilobytes can hold gigabytes of pixels."""

THUMBNAIL = 128
"""Length of the longer side of a thumbnail, in pixels."""

MAX_SIDE = 512
"""Longer side in pixels at which the images of a block are kept; networks that route read no more."""

ADVICE = f"give an intact image ({', '.join(FORMATS)}) of at most {MAX_PIXELS // 1_000_000} megapixels"


def read_image(source: Path | str | bytes, where: str | None = None, max_side: int | None = None) -> np.ndarray:
    """Open an image and convert it to RGB.

    The rotation in its EXIF data is applied, transparency is shown on white, CMYK, palettes, gray and 16 bits per
    channel become 8-bit RGB, and of an animation the first frame is read.

    Args:
        source: A file, or the content of one.
        where: Name of the source in messages; None = the path.
        max_side: Scale larger images down to this length of the longer side, in pixels; None = as they are.

    Returns:
        uint8 (H, W, 3).

    Raises:
        SatlightError: No such file, no image of :data:`FORMATS`, a damaged or truncated one, or more than
            :data:`MAX_PIXELS` pixels.

    Example:
        >>> from PIL import Image
        >>> content = io.BytesIO()
        >>> Image.new("CMYK", (6, 4)).save(content, "JPEG")
        >>> read_image(content.getvalue(), "an example").shape
        (4, 6, 3)
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    where = where or (f"{len(source)} bytes" if isinstance(source, bytes) else str(source))
    try:
        content = source if isinstance(source, bytes) else Path(source).read_bytes()
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise SatlightError(f"The image {where} has {image.width} × {image.height} pixels; {ADVICE}")
            if max_side is not None and image.format == "JPEG":
                image.draft("RGB", (max_side, max_side))  # decodes at a fraction of the size
            whole = ImageOps.exif_transpose(_rgb(image))
    except SatlightError:
        raise
    except FileNotFoundError:
        raise SatlightError(f"The image {where} does not exist; correct the path, or copy the file there") from None
    except UnidentifiedImageError:
        found = "is empty" if not content else "is no image of a known format"
        raise SatlightError(f"The image {where} {found}; {ADVICE}") from None
    except Exception as error:  # Pillow's decoders raise errors of many kinds on damaged files
        raise SatlightError(f"The image {where} cannot be read ({type(error).__name__}: {error}); {ADVICE}") from error
    if max_side is not None:
        whole.thumbnail((max_side, max_side))
    return np.asarray(whole)


def _rgb(image):  # type: ignore[no-untyped-def]  # a PIL image; the library is imported where it is needed
    """Decode the first frame as 8-bit RGB; the EXIF data stay."""
    from PIL import Image

    if image.mode.startswith("I"):  # 16 or 32 bits per pixel
        value_HW = np.asarray(image).astype(np.int64)
        if value_HW.max(initial=0) > 255:
            value_HW = value_HW >> 8
        rgb = Image.fromarray(value_HW.clip(0, 255).astype(np.uint8)).convert("RGB")
    elif image.has_transparency_data:
        layer = image.convert("RGBA")
        rgb = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    else:
        rgb = image.convert("RGB")
    rgb.info["exif"] = image.getexif().tobytes()
    return rgb


def image_source(text: str, folder: Path, where: str) -> Path | bytes:
    """Return the source that :func:`read_image` opens for a reference in a file or a message.

    Args:
        text: A path, or a ``data:`` URL with the image in base64. Images on the web are not fetched.
        folder: Folder that a path is relative to.
        where: Place of the reference, for messages.

    Raises:
        SatlightError: Another kind of URL, or a ``data:`` URL without an image in base64.

    Example:
        >>> image_source("images/a.png", Path("/data"), "line 1").as_posix()
        '/data/images/a.png'
        >>> image_source("data:image/png;base64,iVBORw==", Path(), "line 1")[1:].decode()
        'PNG'

    Reference: RFC 2397, "The data URL scheme".
    """
    scheme = re.match(r"([a-z][a-z0-9+.-]+):", text, re.IGNORECASE)  # at least two letters: C: is a drive
    if scheme is None:
        return folder / text
    if scheme[1].lower() != "data":
        raise SatlightError(
            f"{where}: the image {text!r:.80} is on the web or another place that is not read; download it and give "
            "its path, or a data: URL with its content in base64"
        )
    head, comma, content = text.partition(",")
    if not comma or not head.lower().startswith("data:image/") or not head.lower().endswith(";base64"):
        raise SatlightError(f"{where}: the image {text!r:.80} must be written as data:image/png;base64,...; {ADVICE}")
    try:
        return base64.b64decode("".join(content.split()), validate=True)
    except binascii.Error as error:
        raise SatlightError(f"{where}: the image {text!r:.80} is not in base64 ({error}); encode it again") from None


def thumbnail_url(source: Path | str | bytes, side: int = THUMBNAIL) -> str:
    """Return a ``data:`` URL of a small copy of an image, for pages that refer to no other file.

    Args:
        source: See :func:`read_image`.
        side: Length of the longer side, in pixels.
    """
    from PIL import Image

    content = io.BytesIO()
    Image.fromarray(read_image(source, max_side=side)).save(content, "WEBP", quality=80)
    return f"data:image/webp;base64,{base64.b64encode(content.getvalue()).decode()}"


def data_url(source: Path | str | bytes) -> str:
    """Return an image as a ``data:`` URL, its content unchanged.

    Args:
        source: See :func:`read_image`.

    Raises:
        SatlightError: As for :func:`read_image`.
    """
    from PIL import Image

    read_image(source, max_side=THUMBNAIL)  # an unreadable image is an error here, not at the receiver
    content = source if isinstance(source, bytes) else Path(source).read_bytes()
    with Image.open(io.BytesIO(content), formats=FORMATS) as image:
        kind = image.get_format_mimetype()
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def content_keys(images: Iterable[Path | str | bytes]) -> list[str]:
    """Return keys that are equal for images of equal content: names and folders of copies do not matter.

    Where a file is empty or cannot be read, the key is its path; opening it raises the error.

    Args:
        images: Files, or contents of files.
    """
    return [_digest(image) if isinstance(image, bytes) else _content_key(str(image)) for image in images]


def image_names(paths: Iterable[str]) -> tuple[str, ...]:
    """Return names that identify images without their folder: the key of the content, ``-`` and the file name."""
    return tuple(f"{_content_key(path)}-{Path(path).name}" for path in paths)


def content_of(name: str) -> str:
    """Return the content key in a name of :func:`image_names`.

    Example:
        >>> content_of("0123ab-circles-2.png")
        '0123ab'
    """
    return name.partition("-")[0]


@lru_cache(maxsize=1 << 18)
def _content_key(path: str) -> str:
    try:
        content = Path(path).read_bytes()
    except OSError:
        return path
    return _digest(content) if content else path


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()
