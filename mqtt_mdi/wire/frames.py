"""Frames from sensors: JPEG, PNG, .npy or a CBOR typed array, turned into the model's input.

A frame travels as it came; it is decoded where stage 1 runs. Pillow, 3 MiB, is imported for a first picture:
devices that hold later stages never see one.
"""

import io
import math
from dataclasses import dataclass

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from mqtt_mdi.errors import ProtocolError
from mqtt_mdi.wire.inputs import InputSpec
from mqtt_mdi.wire.tensors import MAX_DIMENSIONS, decode_tensor

JPEG, PNG, NPY, CBOR = "image/jpeg", "image/png", "application/x-npy", "application/cbor"
CONTENT_TYPES = (JPEG, PNG, NPY, CBOR)
_ALIASES = {"image/jpg": JPEG, "application/octet-stream": "", "application/x-numpy": NPY}
_MAGIC = ((b"\xff\xd8\xff", JPEG), (b"\x89PNG\r\n\x1a\n", PNG), (b"\x93NUMPY", NPY), (b"\xd8\x28", CBOR))

MAX_FRAME_BYTES = 16 * 2**20


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
        from mqtt_mdi.wire.pictures import normalise, open_picture  # noqa: PLC0415 -- Pillow

        return normalise(open_picture(frame.data), spec)
    array = decode_npy(frame.data) if frame.content_type == NPY else decode_tensor(frame.data)
    if array.dtype.kind == "f":
        if array.shape != spec.shape:
            raise ProtocolError(f"floating point frame of shape {array.shape}: the model takes {spec.shape}")
        with np.errstate(over="ignore"):  # found on the next line
            values = array.astype(np.float32)
        if not np.isfinite(values).all():
            raise ProtocolError("frame holds NaN, infinite or larger values than 32 bits take")
        return values[None]
    from mqtt_mdi.wire.pictures import normalise, picture_of  # noqa: PLC0415 -- Pillow

    return normalise(picture_of(array), spec)


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


def encode_png(picture: NDArray[np.uint8]) -> Frame:
    """A picture (H, W) or (H, W, 3) as a frame, without loss."""
    from mqtt_mdi.wire.pictures import png_of  # noqa: PLC0415 -- Pillow

    return Frame(PNG, png_of(picture))
