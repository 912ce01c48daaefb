"""Limits that hold before anything is decoded, at their edges."""

import zlib

import cbor2
import numpy as np
import pytest
from samples import GREY, npy_with, picture, png

from mqtt_mdi.errors import ProtocolError
from mqtt_mdi.wire.frames import JPEG, MAX_FRAME_BYTES, NPY, PNG, Frame, decode_frame
from mqtt_mdi.wire.pictures import MAX_READS, MAX_SIDE
from mqtt_mdi.wire.tasks import decode_tasks
from mqtt_mdi.wire.tensors import MAX_ITEMS, encode_tensor, load_cbor


def test_as_many_items_as_may_be_and_one_more() -> None:
    assert len(load_cbor(cbor2.dumps([0] * (MAX_ITEMS - 1)))) == MAX_ITEMS - 1  # type: ignore[arg-type]
    with pytest.raises(ProtocolError, match=f"CBOR of more than {MAX_ITEMS} items"):
        load_cbor(cbor2.dumps([0] * MAX_ITEMS))


def test_long_strings_are_no_items() -> None:
    value = {"text": "a" * MAX_ITEMS, "tensor": cbor2.loads(encode_tensor(np.zeros(MAX_ITEMS, "<f8")))}
    assert cbor2.dumps(load_cbor(cbor2.dumps(value))) == cbor2.dumps(value)


@pytest.mark.parametrize(("side", "taken"), [(MAX_SIDE, True), (MAX_SIDE + 1, False)])
def test_the_longest_side(side: int, taken: bool) -> None:  # noqa: FBT001 -- a parameter of the test
    line = np.zeros((1, side), np.uint8)
    for frame in (
        Frame(PNG, png(side, 1, zlib.compress(bytes(side + 1)))),
        Frame(
            NPY,
            npy_with(f"{{'descr': '|u1', 'fortran_order': False, 'shape': (1, {side}), }}\n", bytes(side)),
        ),
        Frame("application/cbor", encode_tensor(line)),
    ):
        if taken:
            assert decode_frame(frame, GREY).shape == (1, 1, 8, 6)
        else:
            with pytest.raises(ProtocolError, match=f"and {MAX_SIDE} a side are taken"):
                decode_frame(frame, GREY)


def test_a_jpeg_of_too_many_scans() -> None:
    data = picture("RGB", "JPEG", (4000, 4000), progressive=True)
    assert decode_frame(Frame(JPEG, data), GREY).shape == (1, 1, 8, 6)
    scan = data[data.rfind(b"\xff\xda") : -2]
    with pytest.raises(ProtocolError, match="JPEG of 30 scans"):
        decode_frame(Frame(JPEG, data[:-2] + scan * (30 - data.count(b"\xff\xda")) + data[-2:]), GREY)


def test_a_picture_of_too_many_parts() -> None:
    with pytest.raises(ProtocolError, match=f"more than {MAX_READS} parts"):
        decode_frame(Frame(JPEG, b"\xff\xd8" + b"\xff" * 2 * MAX_READS), GREY)


def test_a_shape_of_truth_values() -> None:
    header = "{'descr': '|u1', 'fortran_order': False, 'shape': (True, True), }\n"
    with pytest.raises(ProtocolError, match="npy of shape"):
        decode_frame(Frame(NPY, npy_with(header, b"a")), GREY)


def test_a_task_with_too_large_a_frame() -> None:
    task = {"sensor": "c", "frame_id": "1", "source": "s", "stage": 1}
    large = {"type": PNG, "data": bytes(MAX_FRAME_BYTES + 1)}
    with pytest.raises(ProtocolError, match=f"at most {MAX_FRAME_BYTES} are taken"):
        decode_tasks(cbor2.dumps({"tasks": [task], "inputs": [large]}), 1)
