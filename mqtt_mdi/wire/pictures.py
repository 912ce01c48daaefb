"""Pictures from sensors with Pillow: opened within limits, and turned into the model's input."""

import io
import struct
import zlib

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from mqtt_mdi.errors import ProtocolError
from mqtt_mdi.wire.inputs import InputSpec

MAX_PIXELS = 24_000_000
MAX_SIDE = 65_535
"""JPEG's own limit. To shrink a side takes memory in proportion to it, however few its pixels are."""

MAX_SCANNED_PIXELS = 16 * MAX_PIXELS
"""A JPEG goes over its pixels once a scan, and a scan may take a dozen bytes."""

MAX_READS = 100_000
"""Reading a picture's parts, of which the smallest has a few bytes, takes Pillow some microseconds each."""

_JPEG_SCAN = b"\xff\xda"


class _Parts(io.BytesIO):
    """The bytes of a picture, with an end to the parts it may be made of."""

    reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self.reads += 1
        if self.reads > MAX_READS:
            raise ValueError(f"it has more than {MAX_READS} parts")
        return super().read(size)


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
        raise ProtocolError(
            f"picture of {width}x{height}: at most {MAX_PIXELS} pixels and {MAX_SIDE} a side are taken"
        )


def open_picture(data: bytes) -> Image.Image:
    """Decode a PNG or JPEG; raises ProtocolError, and does so before decoding what goes past the limits."""
    kind = PngImageFile if data.startswith(b"\x89PNG") else JpegImageFile
    try:  # Image.open would warn of large pictures, where MAX_PIXELS decides
        picture = kind(_Parts(data))
        _check_size(*picture.size)
        scans = data.count(_JPEG_SCAN) if kind is JpegImageFile else 1
        if scans * picture.width * picture.height > MAX_SCANNED_PIXELS:
            raise ProtocolError(
                f"JPEG of {scans} scans: at most {MAX_SCANNED_PIXELS} pixels in all are taken"
            )
        picture.load()
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error) as error:
        raise ProtocolError(f"picture cannot be decoded: {str(error)[:200]}") from error
    return picture


def picture_of(array: NDArray[np.generic]) -> Image.Image:
    """The picture in an array of integers (H, W), (H, W, C) or (C, H, W); raises ProtocolError."""
    if array.dtype.kind not in "ui" or array.size == 0:
        raise ProtocolError(f"array of {array.dtype} and shape {array.shape} is no picture")
    if array.min() < 0 or array.max() > 255:  # noqa: PLR2004 -- eight bits
        raise ProtocolError("integer frames hold values from 0 to 255")
    pixels = array.astype(np.uint8)
    if pixels.ndim == 3 and pixels.shape[0] in (1, 3) and pixels.shape[2] not in (1, 3):  # noqa: PLR2004
        pixels = pixels.transpose(1, 2, 0)
    if pixels.ndim == 3 and pixels.shape[2] == 1:  # noqa: PLR2004
        pixels = pixels[:, :, 0]
    if pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3):  # noqa: PLR2004
        _check_size(pixels.shape[1], pixels.shape[0])
        return Image.fromarray(np.ascontiguousarray(pixels))
    raise ProtocolError(f"frame of shape {array.shape}: expected (H, W), (H, W, C) or (C, H, W), C 1 or 3")


def fitted(picture: Image.Image, channels: int, size: tuple[int, int]) -> NDArray[np.uint8]:
    """The pixels (H, W, C) of a picture in grey or RGB, scaled to `size` (W, H).

    Where it is wider or higher than `size`, its middle is taken: things keep their shape. Training reads
    pictures with this too, so that a network learns from what it will be given.
    """
    if picture.mode in ("I", "I;16"):  # 16-bit grey, which convert would clip
        picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    picture.info.pop("transparency", None)
    picture = picture.convert("L" if channels == 1 else "RGB")
    if picture.size != size:
        share = min(picture.width / size[0], picture.height / size[1])
        wide, high = (max(1, round(side * share)) for side in size)
        left, top = (picture.width - wide) // 2, (picture.height - high) // 2
        box = (left, top, left + wide, top + high)
        picture = picture.resize(size, Image.Resampling.BILINEAR, box)
    return np.asarray(picture).reshape(size[1], size[0], channels)


def normalise(picture: Image.Image, spec: InputSpec) -> NDArray[np.float32]:
    """The model's input (1, C, H, W): resized, in its colours, with its mean and deviation."""
    pixels = fitted(picture, spec.channels, (spec.width, spec.height)).astype(np.float32)
    mean, std = np.array(spec.mean, np.float32), np.array(spec.std, np.float32)
    scaled = (pixels / 255 - mean) / std
    return np.ascontiguousarray(scaled.transpose(2, 0, 1), np.float32)[None]


def png_of(picture: NDArray[np.uint8]) -> bytes:
    """The PNG of a picture (H, W) or (H, W, 3)."""
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "PNG")
    return stream.getvalue()
