"""Batches of tasks with their inputs: the payload of `stage/{k}/...`."""

from collections.abc import Sequence
from operator import attrgetter
from typing import Any, NamedTuple

import cbor2
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from mqtt_mdi.core.types import Identifier, Task
from mqtt_mdi.errors import ProtocolError
from mqtt_mdi.wire.frames import CONTENT_TYPES, MAX_FRAME_BYTES, Frame
from mqtt_mdi.wire.messages import explain
from mqtt_mdi.wire.tensors import load_cbor, tensor_parts, unpack_tensor

MAX_BATCH = 256

TaskInput = NDArray[Any] | Frame
"""What a stage runs on: an activation (1, C, H, W), or for stage 1 the frame as it came."""


class Batch(NamedTuple):
    """The tasks of a message with their inputs, and the device that sent it if it said so."""

    tasks: list[tuple[Task, TaskInput]]
    sender: str | None = None


_TASKS = TypeAdapter(list[Task])
_SENDER = TypeAdapter[str | None](Identifier | None)
_FIELDS = ("sensor", "frame_id", "source", "stage", "attempt", "hops", "admitted_at")
_fields_of = attrgetter(*_FIELDS)


def input_size(value: TaskInput) -> int:
    """Bytes of a task's input."""
    return len(value.data) if isinstance(value, Frame) else value.nbytes


def encode_tasks(batch: Sequence[tuple[Task, TaskInput]], sender: str | None = None) -> bytes:
    """A batch as CBOR: `{"from": device, "tasks": [{..., "input": array | {"type", "data"}}, ...]}`.

    What is last in a map is a null, one byte, until its own bytes take the place: those of an activation
    are not walked through by the encoder.
    """
    opening = {} if sender is None else {"from": sender}
    parts = [cbor2.dumps(opening | {"tasks": [None] * len(batch)})[: -len(batch)]]
    for task, value in batch:
        fields = dict(zip(_FIELDS, _fields_of(task), strict=True))
        parts.append(cbor2.dumps(fields | {"input": None})[:-1])
        if isinstance(value, Frame):
            parts.append(cbor2.dumps({"type": value.content_type, "data": value.data}))
        else:
            parts += tensor_parts(value)
    return b"".join(parts)


def decode_tasks(data: bytes, stage: int) -> Batch:
    """The tasks of a batch that came on the topic of `stage`.

    Raises ProtocolError when any part of the batch is not as it should be; nothing of it is taken.
    """
    document = load_cbor(data)
    tasks = document.get("tasks") if isinstance(document, dict) else None
    if not isinstance(tasks, list) or not 1 <= len(tasks) <= MAX_BATCH:
        raise ProtocolError(f"expected a map with 'tasks', a list of 1 to {MAX_BATCH}")
    assert isinstance(document, dict)
    try:
        sender = _SENDER.validate_python(document.get("from"))
    except ValidationError as error:
        raise ProtocolError(f"from: {explain(error)}") from error
    inputs = [_take_input(fields, stage) for fields in tasks]
    try:
        checked = _TASKS.validate_python(tasks)
    except ValidationError as error:
        raise ProtocolError(f"tasks: {explain(error)}") from error
    for task in checked:
        if task.stage != stage:
            raise ProtocolError(f"a task of stage {task.stage} came on the topic of stage {stage}")
    return Batch(list(zip(checked, inputs, strict=True)), sender)


def _take_input(fields: object, stage: int) -> TaskInput:
    """Take its input out of a task's fields and put its size in."""
    if not isinstance(fields, dict):
        raise ProtocolError(f"a task is a map, not {type(fields).__name__}")
    value = _decode_input(fields.pop("input", None), stage)
    fields["size"] = input_size(value)
    return value


def _decode_input(value: object, stage: int) -> TaskInput:
    if isinstance(value, dict):
        kind, data = value.get("type"), value.get("data")
        if stage != 1 or kind not in CONTENT_TYPES or not isinstance(data, bytes):
            raise ProtocolError("a frame as input needs 'type', 'data' and stage 1")
        if len(data) > MAX_FRAME_BYTES:
            raise ProtocolError(f"frame of {len(data)} bytes: at most {MAX_FRAME_BYTES} are taken")
        return Frame(kind, data)
    return unpack_tensor(value)
