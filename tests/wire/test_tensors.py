from contextlib import suppress
from typing import Any

import cbor2
import numpy as np
import pytest
from cbor2 import CBORTag
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from mangling import mangled
from numpy.typing import NDArray

from mqtt_mdi.errors import ProtocolError
from mqtt_mdi.wire.tensors import DTYPES, decode_tensor, encode_tensor, load_cbor

ARRAYS = hnp.arrays(
    st.sampled_from(sorted(set(DTYPES.values()))).map(np.dtype),
    hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5),
)
SEEDS = [encode_tensor(np.arange(12, dtype=kind).reshape(1, 3, 2, 2)) for kind in ("<f4", ">u2", "|u1")]


@settings(deadline=None, max_examples=150)
@given(ARRAYS)
def test_every_array_comes_back_as_it_was(array: NDArray[Any]) -> None:
    back = decode_tensor(encode_tensor(array))
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    assert back.tobytes() == array.tobytes()


def test_arrays_in_other_memory_orders_travel_row_by_row() -> None:
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    for view in (np.asfortranarray(array), array.transpose(2, 0, 1), array[:, ::-2]):
        assert np.array_equal(decode_tensor(encode_tensor(view)), view)


# Bytes by hand: RFC 8746, section 2 for the tags and 3.1.1 for the shape (its example, and variations).
BY_HAND = {
    "d828 82 82 02 03 d841 4c 0002 0004 0008 0004 0010 0100": np.array([[2, 4, 8], [4, 16, 256]], ">u2"),
    "d828 82 82 02 03 d845 4c 0200 0400 0800 0400 1000 0001": np.array([[2, 4, 8], [4, 16, 256]], "<u2"),
    "d840 43 00 7f ff": np.array([0, 127, 255], np.uint8),
    "d844 43 00 7f ff": np.array([0, 127, 255], np.uint8),
    "d848 43 00 7f ff": np.array([0, 127, -1], np.int8),
    "d84d 44 feff 0100": np.array([-2, 1], "<i2"),
    "d849 44 fffe 0001": np.array([-2, 1], ">i2"),
    "d84e 44 fbffffff": np.array([-5], "<i4"),
    "d84b 48 fffffffffffffffb": np.array([-5], ">i8"),
    "d842 44 00010000": np.array([65536], ">u4"),
    "d847 48 0100000000000000": np.array([1], "<u8"),
    "d850 42 3c00": np.array([1.0], ">f2"),
    "d854 42 003c": np.array([1.0], "<f2"),
    "d851 48 3f800000 c0000000": np.array([1.0, -2.0], ">f4"),
    "d855 48 0000803f 000000c0": np.array([1.0, -2.0], "<f4"),
    "d852 48 3ff8000000000000": np.array([1.5], ">f8"),
    "d856 48 000000000000f83f": np.array([1.5], "<f8"),
    "d828 82 81 00 d855 40": np.zeros(0, "<f4"),
    "d828 82 80 d855 44 0000803f": np.array(1.0, "<f4"),
    "d9d9f7 d840 41 05": np.array([5], np.uint8),
}


@pytest.mark.parametrize("text", BY_HAND)
def test_what_another_language_writes_is_read(text: str) -> None:
    array = decode_tensor(bytes.fromhex(text))
    assert array.dtype == BY_HAND[text].dtype
    assert array.shape == BY_HAND[text].shape
    assert np.array_equal(array, BY_HAND[text])


def test_what_we_write_is_as_the_rfc_has_it() -> None:
    written = encode_tensor(np.array([[2, 4, 8], [4, 16, 256]], ">u2"))
    assert written == bytes.fromhex("d828 82 82 02 03 d841 4c 0002 0004 0008 0004 0010 0100")


BYTE = CBORTag(64, b"\1")
REFUSED = {
    "no array": 5,
    "a plain list": [1, 2],
    "another tag": CBORTag(1040, [[1], BYTE]),
    "128-bit floats": CBORTag(83, b"\0" * 16),
    "the reserved tag": CBORTag(76, b"\0"),
    "text for bytes": CBORTag(64, "a"),
    "half an element": CBORTag(85, b"\0" * 6),
    "shape alone": CBORTag(40, [[1]]),
    "no list": CBORTag(40, BYTE),
    "elements as a list": CBORTag(40, [[1], [1]]),
    "shape of text": CBORTag(40, ["1", BYTE]),
    "shape of a number": CBORTag(40, [1, BYTE]),
    "too few elements": CBORTag(40, [[2], BYTE]),
    "too many elements": CBORTag(40, [[], CBORTag(64, b"12")]),
    "five dimensions": CBORTag(40, [[1] * 5, BYTE]),
    "negative extents": CBORTag(40, [[-1, -1], BYTE]),
    "a wildcard": CBORTag(40, [[-1], BYTE]),
    "fractions": CBORTag(40, [[1.0], BYTE]),
    "truth for a number": CBORTag(40, [[True], BYTE]),
    "an array in an array": CBORTag(40, [[1], CBORTag(40, [[1], BYTE])]),
    "nothing, very long": CBORTag(40, [[0, 2**63], CBORTag(64, b"")]),
    "nothing, in every direction": CBORTag(40, [[0, 2**62, 2**62], CBORTag(64, b"")]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_typed_array_is_refused(name: str) -> None:
    with pytest.raises(ProtocolError):
        decode_tensor(cbor2.dumps(REFUSED[name]))


HOSTILE = {
    "nothing": "",
    "cut short": "d82882 8101 d84041",
    "a gigabyte promised": "5a40000000",
    "2^64 bytes promised": "5bffffffffffffffff",
    "2^64 items promised": "9bffffffffffffffff",
    "2^64 pairs promised": "bbffffffffffffffff",
    "indefinite bytes": "5f 4101 ff",
    "indefinite list": "9f 01 ff",
    "indefinite map": "bf 6161 01 ff",
    "deep lists": "81" * 10_000 + "01",
    "deep tags": "d828" * 10_000 + "01",
    "stray break": "ff",
    "reserved length": "1c",
    "broken UTF-8": "61ff",
    "two items": "01 02",
    "date as text": "c0 74 323031332d30332d32315432303a30343a30305a",
    "date as a number": "c1 1a514b67b0",
    "date beyond all": "c1 1b7fffffffffffffff",
    "date that is no number": "c1 fb7ff8000000000000",
    "big integer": "c2 49 010000000000000000",
    "very big integer": "c2 591000" + "ff" * 4096,
    "negative big integer": "c3 49 010000000000000000",
    "decimal fraction": "c4 82 21 196ab3",
    "enormous decimal fraction": "c4 82 1b7fffffffffffffff 03",
    "big float": "c5 82 1a3b9aca00 03",
    "rational over zero": "d81e 82 01 00",
    "regular expression": "d823 61 61",
    "broken regular expression": "d823 61 28",
    "mail": "d824 61 61",
    "uuid": "d825 50" + "00" * 16,
    "shared value": "d81c 80",
    "list that holds itself": "d81c 81 d81d 00",
    "reference to nothing": "d81d 05",
    "string table": "d90100 81 6161",
    "string reference": "d819 00",
    "set": "d90102 82 01 02",
    "set of maps": "d90102 81 a0",
    "network address": "d90104 44 c0000201",
    "IPv4": "d834 44 c0000201",
    "day": "d864 01",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_cbor_is_refused(name: str) -> None:
    with pytest.raises(ProtocolError):
        load_cbor(bytes.fromhex(HOSTILE[name]))


@pytest.mark.parametrize("key", ["80", "a0", "f7", "d84041ff", "fb7ff8000000000000"])
def test_odd_keys_of_maps_do_no_harm(key: str) -> None:
    assert isinstance(load_cbor(bytes.fromhex(f"a1 {key} 01")), dict)


def test_what_has_no_typed_array_is_not_written() -> None:
    with pytest.raises(ProtocolError, match="bool"):
        encode_tensor(np.array([True]))


@settings(deadline=None, max_examples=250)
@given(mangled(SEEDS))
def test_any_bytes_give_an_array_or_a_protocol_error(data: bytes) -> None:
    with suppress(ProtocolError):
        assert isinstance(decode_tensor(data), np.ndarray)
