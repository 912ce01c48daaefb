"""Arrays as CBOR (RFC 8949) typed arrays (RFC 8746), so that any language can read them."""

import io
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NoReturn

import cbor2
import numpy as np
from numpy.typing import NDArray

from mqtt_mdi.errors import ProtocolError

MAX_DIMENSIONS = 4
MAX_DEPTH = 8
MAX_ITEMS = 2**18
"""Hostile bytes become 20 MB of objects at most, instead of a gigabyte; a full batch has about ten thousand.
A message of fewer bytes cannot hold more, so none of ours has to be counted."""

# RFC 8746, section 2.1: a tag number names the type of the elements; section 3.1.1: 40 adds the shape.
_ROW_MAJOR = 40
# Tag 68 is what a browser's picture is: bytes that clamp when written, plain ones to a reader.
DTYPES = {tag: np.dtype(name) for tag, name in {
    68: "|u1",
    64: "|u1", 65: ">u2", 66: ">u4", 67: ">u8", 69: "<u2", 70: "<u4", 71: "<u8",
    72: "|i1", 73: ">i2", 74: ">i4", 75: ">i8", 77: "<i2", 78: "<i4", 79: "<i8",
    80: ">f2", 81: ">f4", 82: ">f8", 84: "<f2", 85: "<f4", 86: "<f8",
}.items()}  # fmt: skip
_TAGS = {dtype: tag for tag, dtype in DTYPES.items()}

# Major types of RFC 8949: what their argument counts, bytes or items.
_STRINGS, _TAG, _CONTENTS = (2, 3), 6, {4: 1, 5: 2}
_LONG_ARGUMENT = 24

# The tags that cbor2 would turn into dates, regular expressions, huge integers, shared references, mail.
_FOREIGN_TAGS = (
    0, 1, 2, 3, 4, 5, 25, 28, 29, 30, 35, 36, 37, 52, 54, 100, 256, 258, 260, 261, 1004, 43000,
)  # fmt: skip


def stacked_parts(arrays: Sequence[NDArray[Any]]) -> tuple[bytes | memoryview, ...]:
    """What joined is the CBOR of one array (N, ...), made of N alike, each of shape (1, ...)."""
    first = arrays[0]
    head = _tensor_head(first.dtype, (len(arrays), *first.shape[1:]))
    return (head, *(np.ascontiguousarray(array).data for array in arrays))


@lru_cache(maxsize=64)  # a device sends few shapes
def _tensor_head(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    """All of an array but its elements, which end it: tag 40 around its shape and a typed array."""
    tag = _TAGS.get(dtype)
    if tag is None:
        raise ProtocolError(f"arrays of {dtype} have no typed array in RFC 8746")
    size = math.prod(shape) * dtype.itemsize
    whole = cbor2.dumps(cbor2.CBORTag(_ROW_MAJOR, [list(shape), cbor2.CBORTag(tag, bytes(size))]))
    return whole[: len(whole) - size]


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
    if not isinstance(value, cbor2.CBORTag) or value.tag not in DTYPES:
        raise ProtocolError("the elements are no typed array that RFC 8746 names")
    dtype = DTYPES[value.tag]
    if not isinstance(value.value, bytes) or len(value.value) % dtype.itemsize:
        raise ProtocolError(f"a typed array of {dtype} needs a byte string of a multiple of {dtype.itemsize}")
    flat: NDArray[Any] = np.frombuffer(value.value, dtype)
    if shape is None:
        return flat
    if (
        not isinstance(shape, list | tuple)
        or len(shape) > MAX_DIMENSIONS
        or {*map(type, shape)} - {int}
        or min(shape, default=0) < 0
        or math.prod(shape) != flat.size
    ):
        raise ProtocolError(f"shape {str(shape)[:80]} does not fit {flat.size} elements")
    try:
        return flat.reshape(shape)
    except ValueError as error:  # no elements, and extents beyond any address
        raise ProtocolError(f"shape {str(shape)[:80]} is too large") from error


def load_cbor(data: bytes) -> object:
    """Decode one CBOR item of plain values and typed arrays; ProtocolError says why it cannot be."""
    if len(data) > MAX_ITEMS:  # an item takes a byte or more
        _count_items(data)
    stream = io.BytesIO(data)
    decoder = cbor2.CBORDecoder(
        stream,
        read_size=len(data),  # in one go: in parts, what is large would be copied twice
        max_depth=MAX_DEPTH,
        allow_indefinite=False,
        semantic_decoders=_REFUSE_FOREIGN,
    )
    try:
        value: object = decoder.decode()
    except (cbor2.CBORError, ValueError, TypeError, OverflowError, MemoryError, RecursionError) as error:
        raise ProtocolError(f"not readable CBOR: {str(error.__cause__ or error)[:200]}") from error
    if extra := len(data) - stream.tell():
        raise ProtocolError(f"{extra} bytes follow the CBOR item: send one item a message")
    return value


def _count_items(data: bytes) -> None:
    """ProtocolError when more than MAX_ITEMS are there or announced; the decoder finds all other faults.

    RFC 8949, section 3: an initial byte of major type and argument, or the length of the argument.
    """
    at, items, announced = 0, 0, 1
    while announced and at < len(data):
        kind, value = data[at] >> 5, data[at] & 31
        at += 1
        items, announced = items + 1, announced - 1
        if value >= _LONG_ARGUMENT:
            width = 1 << (value - _LONG_ARGUMENT)
            value, at = int.from_bytes(data[at : at + width]), at + width
        if kind in _STRINGS:
            at += value
        else:
            announced += _CONTENTS.get(kind, 0) * value if kind != _TAG else 1
        if items + announced > MAX_ITEMS:
            raise ProtocolError(f"CBOR of more than {MAX_ITEMS} items")


def _refuse(*_: object) -> NoReturn:
    raise ValueError("it holds a tag that is no typed array (RFC 8746)")


_REFUSE_FOREIGN = dict.fromkeys(_FOREIGN_TAGS, _refuse)


def encode_tensor(array: NDArray[Any]) -> bytes:
    """One array as a CBOR document."""
    return _tensor_head(array.dtype, array.shape) + array.tobytes()


def decode_tensor(data: bytes) -> NDArray[Any]:
    """The array of a CBOR document."""
    return unpack_tensor(load_cbor(data))
