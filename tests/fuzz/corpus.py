"""Inputs that are worth trying every time: those that fuzzing found, in files, and nasty ones made here."""

import functools
import io
import struct
import zlib
from collections.abc import Callable
from itertools import product
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

import cbor2
import numpy as np
from PIL import Image
from samples import chunk, npy, npy_with, picture, png

from mqtt_mdi.wire.tensors import encode_tensor

CORPUS = Path(__file__).with_name("corpus")
DEEP = 5000
BOMB_BYTES = 300 * 2**20

Makers = dict[str, bytes | Callable[[], bytes]]


def kept(target: str) -> dict[str, bytes]:
    """The files of a target's corpus, by name."""
    folder = CORPUS / target
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*"))} if folder.is_dir() else {}


@functools.cache
def nasty(target: str) -> dict[str, Callable[[], bytes]]:
    """What makes the inputs for a target and for others of its kind, by name; some are large."""
    return {
        name: made if callable(made) else (lambda data=made: data)
        for kind, makers in _makers().items()
        if target.startswith(kind)
        for name, made in makers.items()
    }


@functools.cache
def _makers() -> dict[str, Makers]:
    """By what the names of targets begin with."""
    json = _json()
    return {
        "": {
            "nothing": b"",
            "zero": b"\0",
            "no UTF-8": b"\xff\xfe\xfa",
            "half a character": b'{"frame_id": "\xe2\x82',
            "zeros": bytes(2**16),
        },
        **dict.fromkeys(
            ("result", "exits", "truth", "device", "policy", "coordinator", "metrics", "dead"), json
        ),
        "manifest": json,
        "tasks": _cbor() | {"a bomb of tasks": b"\xa1\x65tasks\x9a\0\1\0\0" + b"\xa0" * 2**16},
        "frame-cbor": _cbor() | _typed_arrays(),
        "frame-jpeg": _jpeg(),
        "frame-png": _png(),
        "frame-npy": _npy(),
        "trace": _npz("score"),
        "sample": _npz("pictures"),
        "scenario": _yaml(),
        "users": _yaml(),
    }


def _json() -> Makers:
    return {
        "deep lists": b"[" * DEEP,
        "deep maps": b'{"a":' * DEEP + b"1" + b"}" * DEEP,
        "deep in a field": b'{"placement": ' + b"[" * 150 + b"]" * 150 + b"}",
        "a number of many digits": b'{"version": ' + b"1" * 100_000 + b"}",
        "a number of some digits": b'{"window": ' + b"9" * 4200 + b"}",
        "no number": b'{"thresholds": [NaN, Infinity, -Infinity]}',
        "beyond any number": b'{"lease_s": 1e999, "window": -1e999}',
        "a key twice": b'{"window": 1, "window": 2}',
        "half a surrogate": b'{"strategy": "\\ud800"}',
        "a null character": b'{"frame_id": "a\\u0000b", "label": 1}',
        "a long name": b'{"' + b"n" * 500_000 + b'": 1}',
        "many members": b"{" + b",".join(b'"%d":1' % n for n in range(50_000)) + b"}",
        "more than a message may have": b'"' + b"a" * 2**20 + b'"',
        "a byte order mark": b'\xef\xbb\xbf{"window": 1}',
        "no version": b'{"version": 7}',
    }


def _cbor() -> Makers:
    return {
        "list of 2^63": b"\x9b\x7f" + b"\xff" * 7,
        "list of 2^31": b"\x9a\x7f\xff\xff\xff",
        "map of 2^32": b"\xba\xff\xff\xff\xff",
        "bytes of 2^40": b"\x5b\0\0\1\0\0\0\0\0",
        "text of 2^40": b"\x7b\0\0\1\0\0\0\0\0",
        "without end": b"\x9f" * 100,
        "deep lists": b"\x81" * DEEP,
        "deep tags": b"\xd8\x28" * DEEP,
        "deep maps": b"\xa1\x61a" * DEEP,
        "a million lists": b"\x9a\0\x10\0\0" + b"\x80" * 2**20,
        "a million maps": b"\x9a\0\x10\0\0" + b"\xa0" * 2**20,
        "names that collide": lambda: b"\xba" + struct.pack(">I", 2**16) + _colliding(16),
        "a large number": b"\xc2\x59\x27\x10" + b"\xff" * 10_000,
        "a date": b"\xc0\x74" + b"2013-03-21T20:04:00Z",
        "itself": b"\xd8\x1c\x81\xd8\x1d\0",
        "a key twice": b"\xa2\x65tasks\x80\x65tasks\x80",
        "no UTF-8": b"\x62\xff\xfe",
        "two items": b"\x80\x80",
    }


def _colliding(length: int) -> bytes:
    """Lists of -1 and -2 as names: Python gives both numbers, and so all such lists, one hash."""
    keys = product((-1, -2), repeat=length)
    return b"".join(bytes([0x80 + length, *(0x20 + (n == -2) for n in key), 0]) for key in keys)


def _typed_arrays() -> Makers:
    def array(shape: list[object], data: bytes, tag: int = 64) -> bytes:
        return cbor2.dumps(cbor2.CBORTag(40, [shape, cbor2.CBORTag(tag, data)]))

    return {
        "too large a shape": array([2**31, 2**31], b"a"),
        "empty and large": array([0, 2**63 - 1, 2**63 - 1], b""),
        "a negative shape": array([-1, -1], b"a"),
        "a shape of shapes": array([[1], 1], b"a"),
        "a shape of truths": array([True, True], b"a"),
        "five dimensions": array([1] * 5, b"a"),
        "no numbers": array([1, 8, 6], np.full(48, np.nan, "<f4").tobytes(), 85),
        "larger than 32 bits take": array([1, 8, 6], np.full(48, 1e300).tobytes(), 86),
        "one line": lambda: encode_tensor(np.zeros((1, 2**24 - 64), np.uint8)),
    }


def _jpeg() -> Makers:
    valid = picture("RGB", "JPEG", (40, 40))
    return {
        "the largest": _scanned,
        "a thousand scans": lambda: _scanned(1000),
        "fill bytes": lambda: b"\xff\xd8" + b"\xff" * (2**24 - 2),
        "a million segments": lambda: b"\xff\xd8" + b"\xff\xe1\0\2" * 2**20,
        "cut": valid[: len(valid) // 2],
        "cut in its header": valid[:30],
        "four arithmetic scans": _arithmetic(6000, 4000),
    }


def _scanned(more: int = 0) -> bytes:
    """A progressive JPEG of the largest size, its last scan said again."""
    stream = io.BytesIO()
    Image.new("RGB", (6000, 4000)).save(stream, "JPEG", progressive=True)
    data = stream.getvalue()
    return data[:-2] + data[data.rfind(b"\xff\xda") : -2] * more + data[-2:]


def _arithmetic(width: int, height: int) -> bytes:
    tables = b"\xff\xdb\0\x43\0" + b"\1" * 64
    frame = b"\xff\xca" + struct.pack(">HBHHB", 17, 8, height, width, 3) + b"\1\x11\0\2\x11\0\3\x11\0"
    first = b"\xff\xda\0\x0c\3\1\0\2\0\3\0\0\0\1" + bytes(8)
    more = b"".join(b"\xff\xda\0\x08\1%c\0\1\x3f\1" % n + bytes(8) for n in (1, 2, 3))
    return b"\xff\xd8" + tables + frame + first + more + b"\xff\xd9"


def _png() -> Makers:
    head, tail = png(5, 5)[:33], chunk(b"IDAT", zlib.compress(bytes(30))) + chunk(b"IEND", b"")
    return {
        "the largest": lambda: png(
            6000, 4000, zlib.compress(bytes(4000 * (6000 * 8 + 1)), 9), colour=6, bits=16
        ),
        "one line of many pixels": lambda: png(24_000_000, 1, zlib.compress(bytes(3_000_001)), bits=1),
        "2^31 by 2^31": png(2**31 - 1, 2**31 - 1, zlib.compress(b"")),
        "no pixels": png(0, 0, zlib.compress(b"")),
        "a million parts": lambda: head + chunk(b"abCd", b"") * 2**20 + tail,
        "a bomb of text": lambda: head + chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(50_000_000))) + tail,
        "bombs of text": lambda: (
            head + chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1_000_000))) * 200 + tail
        ),
        "a bomb of colours": lambda: (
            head + chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(50_000_000))) + tail
        ),
        "more pixels than said": lambda: png(5, 5, zlib.compress(bytes(50_000_000))),
        "a part of 2^31": b"\x89PNG\r\n\x1a\n\x7f\xff\xff\xffIHDR",
        "cut": picture("RGB", "PNG", (40, 40))[:-60],
    }


def _npy() -> Makers:
    def of(shape: str, dtype: str = "<f4", body: bytes = b"") -> bytes:
        return npy_with(f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}\n", body)

    return {
        "10^12 numbers": of("(1000000000000,)"),
        "huge and empty": of(f"({2**70}, 0, {2**70})"),
        "a shape of truths": of("(True, True)", "|u1", b"a"),
        "a negative shape": of("(-1, -1)", "|u1", b"a"),
        "objects": of("(1,)", "|O", b"\x80\4N."),
        "a structure": of("(1,)", "V999999999"),
        "deep nesting": npy_with("(" * 3000 + ")" * 3000),
        "many signs": npy_with("-" * 9000 + "1"),
        "many digits": of("(" + "9" * 9000 + ",)"),
        "a header of 4 GB": b"\x93NUMPY\2\0\xff\xff\xff\xff{",
        "no numbers": npy(np.full((3, 8, 6), np.nan, np.float32)),
        "infinite": npy(np.full((3, 8, 6), np.inf, np.float64)),
        "larger than 32 bits take": npy(np.full((3, 8, 6), 1e300)),
        "one line": lambda: npy(np.zeros((1, 2**24 - 256), np.uint8)),
    }


def _npz(name: str) -> Makers:
    def zipped(data: bytes, zeros: int = 0) -> bytes:
        stream = io.BytesIO()
        with ZipFile(stream, "w", ZIP_DEFLATED) as made, made.open(f"{name}.npy", "w") as file:
            file.write(data)
            for _ in range(zeros // 2**20):
                file.write(bytes(2**20))
        return stream.getvalue()

    def said_small() -> bytes:
        return bomb().replace(struct.pack("<I", len(header) + BOMB_BYTES), struct.pack("<I", 1000))

    def bomb() -> bytes:
        return zipped(header, BOMB_BYTES)

    header = npy_with(f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({BOMB_BYTES},), }}\n")
    return {
        "a bomb": bomb,
        "a bomb that says it is small": said_small,
        "objects": zipped(
            npy_with("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }\n", b"\x80\4N.")
        ),
        "no array": zipped(b"hello"),
        "cut": zipped(npy(np.zeros(10)))[:-10],
    }


def _yaml() -> Makers:
    laughs = "\n".join(
        f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    )
    return {
        "a billion laughs": f"a: &a [1]\n{laughs}\n".encode(),
        "a billion members": b"a: &a {x: 1}\nb: &b {<<: [*a, *a, *a]}\n",
        "itself": b"&a [*a]",
        "deep lists": b"[" * DEEP,
        "deep maps": b"{a: " * DEEP,
        "no date": b"name: 2001-99-99\n",
        "no number": b"seed: !!int ''\nframes: !!float x\n",
        "many digits": b"seed: " + b"1" * 5000,
        "not finite": b"limit_s: .inf\nload_s: .nan\n",
        "code": b"!!python/object/apply:os.system ['true']",
        "a date of nothing": b"!!timestamp x",
        "a truth of nothing": b"!!bool x",
        "a key twice": b"name: a\nname: b\n",
        "a map of maps": b"? {a: 1}\n: 2\n",
        "three thousand devices": b"name: a\narrivals: {kind: saturating}\ndevices: ["
        + b",".join(b"{id: d%d, source: true}" % n for n in range(3000))
        + b"]\n",
        "tabs": b"a:\n\t- b",
        "null": b"a: \0",
    }
