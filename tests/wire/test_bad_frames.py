import struct
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import cbor2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mangling import mangled
from samples import COLOUR, GREY, PICTURE, chunk, npy, npy_with, picture, png

from mqtt_mdi.errors import ProtocolError
from mqtt_mdi.wire.frames import (
    CBOR,
    JPEG,
    NPY,
    PNG,
    Frame,
    decode_frame,
    decode_npy,
    sniff,
)
from mqtt_mdi.wire.tensors import encode_tensor

BAD_PICTURES = {
    "nothing": b"",
    "a signature alone": b"\x89PNG\r\n\x1a\n",
    "text": b"hello",
    "jpeg cut short": picture("RGB", "JPEG", (40, 40))[:-60],
    "png cut short": picture("RGB", "PNG", (40, 40))[:-60],
    "gif": b"GIF89a" + bytes(40),
    "giant png": png(2**31 - 1, 2**31 - 1, zlib.compress(b"")),
    "large png": png(10_000, 10_000, zlib.compress(b"")),
    "promises more than it holds": png(500, 500, zlib.compress(bytes(10))),
    "no pixels": png(0, 5, zlib.compress(b"")),
    "no such colour type": png(5, 5, zlib.compress(bytes(30)), colour=5),
    "no zlib": png(5, 5, b"abcdefgh"),
    "wrong check sum": picture("RGB", "PNG").replace(b"IHDR", b"IHDr"),
    "a bomb of text": b"\x89PNG\r\n\x1a\n"
    + chunk(b"IHDR", struct.pack(">IIBBBBB", 5, 5, 8, 0, 0, 0, 0))
    + chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(5_000_000)))
    + chunk(b"IDAT", zlib.compress(bytes(30)))
    + chunk(b"IEND", b""),
}


@pytest.mark.parametrize("name", BAD_PICTURES)
@pytest.mark.parametrize("kind", [PNG, JPEG])
def test_a_damaged_picture_is_refused(name: str, kind: str) -> None:
    with pytest.raises(ProtocolError, match="picture"):
        decode_frame(Frame(kind, BAD_PICTURES[name]), GREY)


DESCR = "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }\n"
BAD_NPY = {
    "nothing": b"",
    "magic alone": b"\x93NUMPY",
    "version 9": npy_with(DESCR, bytes(8), b"\x09\x00"),
    "objects": npy(np.array([{}, None], object)),
    "structures": npy(np.zeros(2, [("a", "<f4")])),
    "text": npy(np.array(["a"])),
    "complex numbers": npy(np.zeros(2, complex)),
    "truth values": npy(np.zeros(2, bool)),
    "dates": npy(np.zeros(2, "datetime64[s]")),
    "long doubles": npy(np.zeros(2, np.longdouble)),
    "five dimensions": npy(np.zeros((1,) * 5)),
    "too short": npy(np.zeros(2))[:-1],
    "too long": npy(np.zeros(2)) + b"\0",
    "no dictionary": npy_with("[1, 2]\n"),
    "no Python": npy_with("{'descr': (((((\n"),
    "unfinished text": npy_with("{'descr': '''\n"),
    "strange indents": npy_with("   a\n  b\n"),
    "deep nesting": npy_with("(" * 5000 + ")" * 5000),
    "a call": npy_with("{'descr': print(1), 'fortran_order': False, 'shape': (2,), }\n", bytes(8)),
    "no such type": npy_with(DESCR.replace("<f4", "<q9"), bytes(8)),
    "negative shape": npy_with(DESCR.replace("(2,)", "(-1, -2)"), bytes(8)),
    "shape of text": npy_with(DESCR.replace("(2,)", "('a',)"), bytes(8)),
    "terabytes": npy_with(DESCR.replace("(2,)", "(10**12,)"), bytes(8)),
    "huge shape": npy_with(DESCR.replace("(2,)", f"({2**70}, {2**70})"), bytes(8)),
    "nothing, very long": npy_with(DESCR.replace("(2,)", f"(0, {2**70})")),
    "shape of 17,000 digits": npy_with(DESCR.replace("(2,)", "(" + ("9" * 2400 + ",") * 4 + ")"), bytes(8)),
    "mixed keys": npy_with("{1: 2, 'a': 3, None: 4}\n"),
    "header of gigabytes": b"\x93NUMPY\2\0\xff\xff\xff\xff" + DESCR.encode(),
}


@pytest.mark.parametrize("name", BAD_NPY)
def test_a_bad_npy_is_refused(name: str) -> None:
    with pytest.raises(ProtocolError, match="npy") as raised:
        decode_npy(BAD_NPY[name])
    assert len(str(raised.value)) < 400


def test_unpickling_never_happens(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (open, (str(tmp_path / "made"), "w"))

    with pytest.raises(ProtocolError):
        decode_frame(Frame(NPY, npy(np.array([Evil()], object))), GREY)
    assert not (tmp_path / "made").exists()


SEEDS = {
    PNG: [picture("RGB", "PNG"), picture("P", "PNG"), png(6, 8, zlib.compress(bytes(8 * 7)))],
    JPEG: [picture("RGB", "JPEG"), picture("L", "JPEG", progressive=True)],
    NPY: [npy(PICTURE), npy_with(DESCR, bytes(8))],
    CBOR: [encode_tensor(PICTURE), encode_tensor(np.zeros((1, 8, 6), "<f4")), cbor2.dumps([1, {"a": 2.5}])],
}


# Damaged Exif data or animations make Pillow warn, old headers numpy; the frame is read all the same.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", SEEDS)
@settings(deadline=None, max_examples=250)
@given(data=st.data())
def test_any_bytes_give_an_input_or_a_protocol_error(kind: str, data: st.DataObject) -> None:
    raw = data.draw(mangled(SEEDS[kind]))
    for named in (kind, None):
        with suppress(ProtocolError):
            out = decode_frame(sniff(raw, named), GREY)
            assert out.shape == (1, 1, 8, 6)
            assert np.isfinite(out).all()


def with_right_sums(data: bytes) -> bytes:
    """A PNG whose chunks all have their right check sums."""
    out, at = data[:8], 8
    while at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4])
        if end + 4 > len(data):
            break
        out += data[at:end] + struct.pack(">I", zlib.crc32(data[at + 4 : end]))
        at = end + 4
    return out + data[at:]


@pytest.mark.filterwarnings("ignore")
@settings(deadline=None, max_examples=250)
@given(mangled(SEEDS[PNG]).map(with_right_sums))
def test_a_png_damaged_beneath_its_check_sums_gives_an_input_or_a_protocol_error(raw: bytes) -> None:
    with suppress(ProtocolError):
        assert decode_frame(Frame(PNG, raw), COLOUR).shape == (1, *COLOUR.shape)
