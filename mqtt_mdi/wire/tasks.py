"""Batches of tasks with their inputs: the payload of `stage/{k}/...`."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import cbor2
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from mqtt_mdi.core.types import Identifier, Task
from mqtt_mdi.errors import ProtocolError
from mqtt_mdi.wire.frames import CONTENT_TYPES, MAX_FRAME_BYTES, Frame
from mqtt_mdi.wire.messages import explain
from mqtt_mdi.wire.tensors import load_cbor, pack_tensor, unpack_tensor

MAX_BATCH = 256

TaskInput = NDArray[Any] | Frame
"""What a stage runs on: an activation (1, C, H, W), or for stage 1 the frame as it came."""


class Batch(NamedTuple):
    """The tasks of a message with their inputs, and the device that sent it if it said so."""

    tasks: list[tuple[Task, TaskInput]]
    sender: str | None = None


_TASK = TypeAdapter(Task)
_SENDER = TypeAdapter[str | None](Identifier | None)
_FIELDS = ("sensor", "frame_id", "source", "stage", "attempt", "hops", "admitted_at")


def input_size(value: TaskInput) -> int:
    """Bytes of a task's input."""
    return len(value.data) if isinstance(value, Frame) else value.nbytes


def encode_tasks(batch: Sequence[tuple[Task, TaskInput]], sender: str | None = None) -> bytes:
    """A batch as CBOR: `{"tasks": [{..., "input": array | {"type", "data"}}, ...], "from": device}`."""
    tasks = []
    for task, value in batch:
        fields: dict[str, object] = {name: getattr(task, name) for name in _FIELDS}
        if isinstance(value, Frame):
            fields["input"] = {"type": value.content_type, "data": value.data}
        else:
            fields["input"] = pack_tensor(value)
        tasks.append(fields)
    return cbor2.dumps({"tasks": tasks} if sender is None else {"tasks": tasks, "from": sender})


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
    return Batch([_decode_task(fields, stage) for fields in tasks], sender)


def _decode_task(fields: object, stage: int) -> tuple[Task, TaskInput]:
    if not isinstance(fields, dict):
        raise ProtocolError(f"a task is a map, not {type(fields).__name__}")
    value = _decode_input(fields.get("input"), stage)
    try:
        task = _TASK.validate_python(
            {name: fields[name] for name in _FIELDS if name in fields} | {"size": input_size(value)}
        )
    except ValidationError as error:
        raise ProtocolError(f"task: {explain(error)}") from error
    if task.stage != stage:
        raise ProtocolError(f"a task of stage {task.stage} came on the topic of stage {stage}")
    return task, value


def _decode_input(value: object, stage: int) -> TaskInput:
    if isinstance(value, dict):
        kind, data = value.get("type"), value.get("data")
        if stage != 1 or kind not in CONTENT_TYPES or not isinstance(data, bytes):
            raise ProtocolError("a frame as input needs 'type', 'data' and stage 1")
        if len(data) > MAX_FRAME_BYTES:
            raise ProtocolError(f"frame of {len(data)} bytes: at most {MAX_FRAME_BYTES} are taken")
        return Frame(kind, data)
    return unpack_tensor(value)
