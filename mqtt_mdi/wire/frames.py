"""Frames from sensors: JPEG, PNG, .npy or a CBOR typed array, turned into the model's input.

A frame travels as it came; it is decoded where stage 1 runs. Limits are checked before pixels are.
"""

import io
import math
import struct
import zlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from pydantic import BaseModel, ConfigDict, Field, model_validator

from mqtt_mdi.errors import ProtocolError
from mqtt_mdi.wire.tensors import MAX_DIMENSIONS, decode_tensor

JPEG, PNG, NPY, CBOR = "image/jpeg", "image/png", "application/x-npy", "application/cbor"
CONTENT_TYPES = (JPEG, PNG, NPY, CBOR)
_ALIASES = {"image/jpg": JPEG, "application/octet-stream": "", "application/x-numpy": NPY}
_JPEG_SCAN = b"\xff\xda"
_MAGIC = ((b"\xff\xd8\xff", JPEG), (b"\x89PNG\r\n\x1a\n", PNG), (b"\x93NUMPY", NPY), (b"\xd8\x28", CBOR))

MAX_FRAME_BYTES = 16 * 2**20
MAX_PIXELS = 24_000_000
MAX_SIDE = 65_535
"""JPEG's own limit. To shrink a side takes memory in proportion to it, however few its pixels are."""

MAX_SCANNED_PIXELS = 16 * MAX_PIXELS
"""A JPEG goes over its pixels once a scan, and a scan may take a dozen bytes."""

MAX_READS = 100_000
"""Reading a picture's parts, of which the smallest has a few bytes, takes Pillow some microseconds each."""


class InputSpec(BaseModel):
    """How a picture becomes the model's input: size, colours and normalisation of values in 0..1."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    height: int = Field(ge=1, le=4096)
    width: int = Field(ge=1, le=4096)
    channels: Literal[1, 3]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @model_validator(mode="after")
    def _one_value_a_channel(self) -> "InputSpec":
        if len(self.mean) != self.channels or len(self.std) != self.channels or min(self.std) <= 0:
            raise ValueError(f"mean and std need {self.channels} values, those of std above 0")
        return self

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return (self.channels, self.height, self.width)


@dataclass(frozen=True, slots=True)
class Frame:
    """A sensor's sample as it came: its bytes and what they are."""

    content_type: str
    data: bytes


def sniff(data: bytes, content_type: str | None) -> Frame:
    """Name the format: by the MQTT 5 content type, else by the first bytes.

    Raises ProtocolError for anything that is no frame, before decoding any of it.
    """
    if not data:
        raise ProtocolError("empty frame: expected a JPEG, PNG, .npy or CBOR typed array")
    if len(data) > MAX_FRAME_BYTES:
        raise ProtocolError(f"frame of {len(data)} bytes: at most {MAX_FRAME_BYTES} are taken")
    named = (content_type or "").split(";")[0].strip().lower()
    named = _ALIASES.get(named, named)
    if named and named not in CONTENT_TYPES:
        raise ProtocolError(f"content type {named[:80]!r} is not one of {', '.join(CONTENT_TYPES)}")
    if not named:
        named = next((kind for magic, kind in _MAGIC if data.startswith(magic)), "")
    if not named:
        raise ProtocolError(
            f"frame begins with {data[:8].hex()}: expected a JPEG, PNG, .npy or CBOR typed array (RFC 8746)"
        )
    return Frame(named, data)


def decode_frame(frame: Frame, spec: InputSpec) -> NDArray[np.float32]:
    """Turn a frame into the model's input (1, C, H, W).

    Pictures and integer arrays (H, W), (H, W, C) or (C, H, W) are resized and normalised; floating
    point arrays are taken as they are and must have the shape (C, H, W).
    """
    if frame.content_type in (JPEG, PNG):
        return _normalise(_open_picture(frame.data), spec)
    array = decode_npy(frame.data) if frame.content_type == NPY else decode_tensor(frame.data)
    if array.dtype.kind == "f":
        if array.shape != spec.shape:
            raise ProtocolError(f"floating point frame of shape {array.shape}: the model takes {spec.shape}")
        with np.errstate(over="ignore"):  # found on the next line
            values = array.astype(np.float32)
        if not np.isfinite(values).all():
            raise ProtocolError("frame holds NaN, infinite or larger values than 32 bits take")
        return values[None]
    return _normalise(_picture_of(array), spec)


def decode_npy(data: bytes) -> NDArray[np.generic]:
    """Read a .npy file (NEP 1) of plain numbers; never unpickles."""
    stream = io.BytesIO(data)
    try:
        version = npy.read_magic(stream)
        if version not in {(1, 0), (2, 0), (3, 0)}:
            raise ValueError(f"version {version} is not known")  # noqa: TRY301 -- said with the others below
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, dtype = read(stream)
    except Exception as error:  # numpy has Python parse the header, and that raises all sorts
        raise ProtocolError(f"not a readable .npy header: {str(error)[:200]}") from error
    if dtype.kind not in "uif" or dtype.itemsize > 8:  # noqa: PLR2004 -- no 128-bit floats
        raise ProtocolError(f".npy of {dtype}: expected integers or floating point numbers")
    if any(type(n) is not int or n < 0 for n in shape) or len(shape) > MAX_DIMENSIONS:
        raise ProtocolError(f".npy of shape {str(shape)[:80]}: expected at most four dimensions")
    body = data[stream.tell() :]
    if math.prod(shape) * dtype.itemsize != len(body):
        raise ProtocolError(
            f".npy of {dtype} and shape {str(shape)[:80]}: it holds {len(body)} bytes, which does not fit"
        )
    try:
        return np.frombuffer(body, dtype).reshape(shape, order="F" if fortran else "C")
    except ValueError as error:  # no elements, and extents beyond any address
        raise ProtocolError(f".npy of shape {str(shape)[:80]} is too large") from error


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


def _open_picture(data: bytes) -> Image.Image:
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


def _picture_of(array: NDArray[np.generic]) -> Image.Image:
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


def _normalise(picture: Image.Image, spec: InputSpec) -> NDArray[np.float32]:
    if picture.mode in ("I", "I;16"):  # 16-bit grey, which convert would clip
        picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    picture.info.pop("transparency", None)
    picture = picture.convert("L" if spec.channels == 1 else "RGB")
    if picture.size != (spec.width, spec.height):
        picture = picture.resize((spec.width, spec.height), Image.Resampling.BILINEAR)
    pixels = np.asarray(picture, np.float32).reshape(spec.height, spec.width, spec.channels)
    mean, std = np.array(spec.mean, np.float32), np.array(spec.std, np.float32)
    scaled = (pixels / 255 - mean) / std
    return np.ascontiguousarray(scaled.transpose(2, 0, 1), np.float32)[None]


def encode_png(picture: NDArray[np.uint8]) -> Frame:
    """A picture (H, W) or (H, W, 3) as a frame, without loss."""
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "PNG")
    return Frame(PNG, stream.getvalue())
