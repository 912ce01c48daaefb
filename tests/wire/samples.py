"""Frames as sensors and their libraries write them, and as none should."""

import io
import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mqtt_mdi.wire.inputs import InputSpec

GREY = InputSpec(height=8, width=6, channels=1, mean=(0.0,), std=(1.0,))
COLOUR = InputSpec(height=8, width=6, channels=3, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
PICTURE = (np.arange(8 * 6 * 3) % 256).astype(np.uint8).reshape(8, 6, 3)


def picture(mode: str, kind: str, size: tuple[int, int] = (8, 6), **options: object) -> bytes:
    pixels = (np.arange(size[0] * size[1] * 3) % 256).astype(np.uint8).reshape(*size, 3)
    stream = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(stream, kind, **options)
    return stream.getvalue()


def npy(array: NDArray[Any]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def npy_with(header: str, body: bytes = b"", version: bytes = b"\1\0") -> bytes:
    text = header.encode("latin1")
    length = struct.pack("<H" if version == b"\1\0" else "<I", len(text))
    return b"\x93NUMPY" + version + length + text + body


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, data: bytes = b"", colour: int = 0, bits: int = 8) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
