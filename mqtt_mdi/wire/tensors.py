"""Arrays as CBOR (RFC 8949) typed arrays (RFC 8746), so that any language can read them."""

import math
from typing import Any

import cbor2
import numpy as np
from numpy.typing import NDArray

from mqtt_mdi.errors import ProtocolError

MAX_DIMENSIONS = 4
MAX_DEPTH = 8

# RFC 8746, section 2.1: a tag number names the type of the elements; section 3.1.1: 40 adds the shape.
_ROW_MAJOR = 40
_DTYPES = {
    64: "|u1", 65: ">u2", 66: ">u4", 67: ">u8", 69: "<u2", 70: "<u4", 71: "<u8",
    72: "|i1", 73: ">i2", 74: ">i4", 75: ">i8", 77: "<i2", 78: "<i4", 79: "<i8",
    80: ">f2", 81: ">f4", 82: ">f8", 84: "<f2", 85: "<f4", 86: "<f8",
}  # fmt: skip
_TAGS = {np.dtype(dtype): tag for tag, dtype in _DTYPES.items()}


def pack_tensor(array: NDArray[Any]) -> cbor2.CBORTag:
    """The CBOR value of an array: tag 40 around its shape and a typed array of its elements."""
    tag = _TAGS.get(array.dtype)
    if tag is None:
        raise ProtocolError(f"arrays of {array.dtype} have no typed array in RFC 8746")
    return cbor2.CBORTag(_ROW_MAJOR, [list(array.shape), cbor2.CBORTag(tag, array.tobytes())])


def unpack_tensor(value: object) -> NDArray[Any]:
    """The array of a decoded CBOR value; shares memory with it.

    Raises ProtocolError for anything but a typed array whose elements fill its shape.
    """
    if not isinstance(value, cbor2.CBORTag):
        raise ProtocolError(f"expected a typed array (RFC 8746), got {type(value).__name__}")
    shape: object = None
    if value.tag == _ROW_MAJOR:
        if not isinstance(value.value, list | tuple) or len(value.value) != 2:  # noqa: PLR2004 -- shape and elements
            raise ProtocolError("a multi-dimensional array (tag 40) holds two items: shape and elements")
        shape, value = value.value
    if not isinstance(value, cbor2.CBORTag) or value.tag not in _DTYPES:
        raise ProtocolError("the elements are no typed array that RFC 8746 names")
    dtype = np.dtype(_DTYPES[value.tag])
    if not isinstance(value.value, bytes) or len(value.value) % dtype.itemsize:
        raise ProtocolError(f"a typed array of {dtype} needs a byte string of a multiple of {dtype.itemsize}")
    flat: NDArray[Any] = np.frombuffer(value.value, dtype)
    if shape is None:
        return flat
    if (
        not isinstance(shape, list | tuple)
        or len(shape) > MAX_DIMENSIONS
        or not all(type(n) is int and n >= 0 for n in shape)
        or math.prod(shape) != flat.size
    ):
        raise ProtocolError(f"shape {str(shape)[:80]} does not fit {flat.size} elements")
    return flat.reshape(shape)


def load_cbor(data: bytes) -> object:
    """Decode one CBOR item with bounded nesting; ProtocolError says why it cannot be."""
    try:
        return cbor2.loads(data, max_depth=MAX_DEPTH, allow_indefinite=False)
    except (cbor2.CBORError, ValueError, TypeError, OverflowError, MemoryError, RecursionError) as error:
        raise ProtocolError(f"not readable CBOR: {str(error)[:200]}") from error


def encode_tensor(array: NDArray[Any]) -> bytes:
    """One array as a CBOR document."""
    return cbor2.dumps(pack_tensor(array))


def decode_tensor(data: bytes) -> NDArray[Any]:
    """The array of a CBOR document."""
    return unpack_tensor(load_cbor(data))
