from contextlib import suppress
from dataclasses import replace
from operator import itemgetter

import cbor2
import numpy as np
import pytest
from cbor2 import CBORTag
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from mangling import mangled

from mqtt_mdi.core.types import Task
from mqtt_mdi.errors import ProtocolError
from mqtt_mdi.wire.frames import CONTENT_TYPES, PNG, Frame
from mqtt_mdi.wire.tasks import (
    BATCH_BYTES,
    MAX_BATCH,
    TaskInput,
    decode_tasks,
    encode_tasks,
    input_size,
    messages_of,
)

NAMES = st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True)
STACKS = hnp.arrays(
    st.sampled_from([np.dtype(name) for name in ("<f4", "<f2", ">f4", "|i1")]),
    hnp.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=5),
)
FRAMES = st.builds(Frame, st.sampled_from(CONTENT_TYPES), st.binary(max_size=64))


@st.composite
def activations(draw: st.DrawFn) -> list[np.ndarray]:
    """Of one kind, some of them no neighbours in memory."""
    stack = draw(STACKS)
    if draw(st.booleans()):
        stack = np.asfortranarray(stack)
    return [stack[index : index + 1] for index in range(len(stack))]


@st.composite
def batches(draw: st.DrawFn) -> tuple[int, list[tuple[Task, TaskInput]]]:
    stage = draw(st.integers(1, 64))
    alike = st.lists(FRAMES, min_size=1, max_size=5) if stage == 1 and draw(st.booleans()) else activations()
    batch = []
    for value in draw(alike):
        task = Task(
            draw(NAMES),
            draw(st.from_regex(r"[A-Za-z0-9_.:-]{1,128}", fullmatch=True)),
            draw(NAMES),
            stage,
            attempt=draw(st.integers(1, 100)),
            hops=draw(st.integers(0, 1000)),
            admitted_at=draw(st.floats(allow_nan=False, allow_infinity=False)),
            size=input_size(value),
        )
        batch.append((task, value))
    return stage, batch


def same(one: TaskInput, other: TaskInput) -> bool:
    return one == other if isinstance(one, Frame) else np.array_equal(one, other, equal_nan=True)


@settings(deadline=None, max_examples=50)
@given(batches())
def test_a_batch_comes_back_as_it_was(drawn: tuple[int, list[tuple[Task, TaskInput]]]) -> None:
    stage, batch = drawn
    back = decode_tasks(encode_tasks(batch), stage).tasks
    assert [task for task, _ in back] == [task for task, _ in batch]
    assert all(same(one, other) for (_, one), (_, other) in zip(back, batch, strict=True))


@settings(deadline=None, max_examples=50)
@given(st.lists(batches().map(itemgetter(1)), max_size=4))
def test_tasks_of_any_kinds_are_split_into_messages(drawn: list[list[tuple[Task, TaskInput]]]) -> None:
    tasks = [(replace(task, stage=1), value) for batch in drawn for task, value in batch]
    back = [again for part in messages_of(tasks) for again in decode_tasks(encode_tasks(part), 1).tasks]
    assert [task for task, _ in back] == [task for task, _ in tasks]
    assert all(same(one, other) for (_, one), (_, other) in zip(back, tasks, strict=True))


@pytest.mark.parametrize(
    ("count", "size", "parts"),
    [(MAX_BATCH + 1, 1, [MAX_BATCH, 1]), (5, BATCH_BYTES // 2, [2, 2, 1]), (2, BATCH_BYTES + 1, [1, 1])],
)
def test_a_message_holds_no_more_than_it_may(count: int, size: int, parts: list[int]) -> None:
    tasks = [(Task("cam1", str(n), "s1", 1, size=size), Frame(PNG, bytes(size))) for n in range(count)]
    assert [len(part) for part in messages_of(tasks)] == parts


def stack(count: int) -> CBORTag:
    return CBORTag(40, [[count, 1, 1, 2], CBORTag(85, bytes(8 * count))])


TASK = {"sensor": "cam1", "frame_id": "a:1", "source": "s1", "stage": 2}
ARRAY = stack(1)


def batch_of(inputs: object = ARRAY, **changes: object) -> bytes:
    fields = {**TASK, **changes}
    task = {name: value for name, value in fields.items() if value is not None}
    return cbor2.dumps({"tasks": [task], "inputs": inputs})


@given(st.none() | NAMES)
def test_a_batch_may_name_its_sender(sender: str | None) -> None:
    batch = [(Task("cam1", "a:1", "s1", 1, size=3), Frame(PNG, b"abc"))]
    back = decode_tasks(encode_tasks(batch, sender), 1)
    assert back.sender == sender
    assert back.tasks == batch


def test_a_batch_of_those_who_do_not_name_themselves_is_taken() -> None:
    assert decode_tasks(batch_of(), 2).sender is None


def test_a_peer_may_leave_out_what_has_a_default_and_add_what_we_do_not_know() -> None:
    [(task, value)] = decode_tasks(batch_of(colour="red"), 2).tasks
    assert task == Task("cam1", "a:1", "s1", 2, size=8)
    assert value.shape == (1, 1, 1, 2)


def test_the_size_is_measured_and_not_believed() -> None:
    [(task, _)] = decode_tasks(batch_of(size=10**12), 2).tasks
    assert task.size == 8


REFUSED = {
    "no sensor": batch_of(sensor=None),
    "a sensor with a slash": batch_of(sensor="a/b"),
    "a sensor with a line end": batch_of(sensor="a\n"),
    "a frame id with a space": batch_of(frame_id="a b"),
    "a long frame id": batch_of(frame_id="a" * 129),
    "no source": batch_of(source=None),
    "another stage": batch_of(stage=3),
    "stage 0": batch_of(stage=0),
    "stage 65": batch_of(stage=65),
    "a stage in text": batch_of(stage="two"),
    "attempt 0": batch_of(attempt=0),
    "negative hops": batch_of(hops=-1),
    "NaN for a time": batch_of(admitted_at=float("nan")),
    "infinite time": batch_of(admitted_at=float("inf")),
    "no input": cbor2.dumps({"tasks": [TASK]}),
    "bytes for an input": batch_of(b"abc"),
    "a frame after stage 1": batch_of([{"type": PNG, "data": b"abc"}]),
    "no map": cbor2.dumps([]),
    "no tasks": cbor2.dumps({}),
    "tasks as a map": cbor2.dumps({"tasks": {}}),
    "an empty batch": cbor2.dumps({"tasks": []}),
    "a task that is none": cbor2.dumps({"tasks": [1], "inputs": ARRAY}),
    "too many": cbor2.dumps({"tasks": [TASK] * (MAX_BATCH + 1), "inputs": stack(MAX_BATCH + 1)}),
    "one bad among good": cbor2.dumps({"tasks": [TASK, {**TASK, "stage": 3}], "inputs": stack(2)}),
    "fewer inputs than tasks": cbor2.dumps({"tasks": [TASK, TASK], "inputs": ARRAY}),
    "more inputs than tasks": batch_of(stack(2)),
    "no end of inputs without elements": batch_of(CBORTag(40, [[2**62, 0], CBORTag(85, b"")])),
    "an input without dimensions": batch_of(CBORTag(40, [[], CBORTag(85, bytes(4))])),
    "a list of activations": batch_of([ARRAY]),
    "an empty list": batch_of([]),
    "an integer of 10,000 digits": batch_of(attempt=10**10_000),
    "a date for a name": batch_of(sensor=CBORTag(1, 0)),
    "a sender with a slash": cbor2.dumps({"tasks": [TASK], "inputs": ARRAY, "from": "a/b"}),
    "a sender without a name": cbor2.dumps({"tasks": [TASK], "inputs": ARRAY, "from": ""}),
    "a number for a sender": cbor2.dumps({"tasks": [TASK], "inputs": ARRAY, "from": 7}),
    "a long sender": cbor2.dumps({"tasks": [TASK], "inputs": ARRAY, "from": "a" * 65}),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_batch_with_a_fault_is_refused_whole(name: str) -> None:
    with pytest.raises(ProtocolError):
        decode_tasks(REFUSED[name], 2)


@pytest.mark.parametrize(
    "value",
    [
        {"type": "text/plain", "data": b"a"},
        {"type": PNG},
        {"type": PNG, "data": "a"},
        {"type": [], "data": b"a"},
    ],
)
def test_a_frame_needs_its_type_and_its_bytes(value: object) -> None:
    with pytest.raises(ProtocolError):
        decode_tasks(batch_of([value], stage=1), 1)


SEEDS = [
    encode_tasks([(Task("cam1", "a:1", "s1", 1), Frame(PNG, b"abc"))]),
    encode_tasks(
        [(Task("cam1", str(n), "s1", 1, 2, 1, 0.5), np.zeros((1, 2, 2, 1), "<f4")) for n in range(2)],
        "device-1",
    ),
]


@settings(deadline=None, max_examples=250)
@given(mangled(SEEDS))
def test_any_bytes_give_tasks_or_a_protocol_error(data: bytes) -> None:
    with suppress(ProtocolError):
        assert all(task.stage == 1 for task, _ in decode_tasks(data, 1).tasks)
