"""Batches of tasks with their inputs: the payload of `stage/{k}/...`."""

from collections.abc import Iterable, Iterator, Sequence
from operator import attrgetter
from typing import Any, NamedTuple

import cbor2
import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from mqtt_mdi.core.types import Identifier, Task
from mqtt_mdi.errors import ProtocolError
from mqtt_mdi.wire.frames import CONTENT_TYPES, MAX_FRAME_BYTES, Frame
from mqtt_mdi.wire.messages import explain
from mqtt_mdi.wire.tensors import load_cbor, stacked_parts, unpack_tensor

MAX_BATCH = 256
BATCH_BYTES = 2**17
"""Inputs of several tasks take no more in one message."""

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


def messages_of(tasks: Iterable[tuple[Task, TaskInput]]) -> Iterator[list[tuple[Task, TaskInput]]]:
    """Split tasks of a stage, in their order, into parts that `encode_tasks` takes, a message each."""
    part: list[tuple[Task, TaskInput]] = []
    size, kind = 0, None
    for task, value in tasks:
        last, kind = kind, _kind(value)
        if part and (kind != last or len(part) >= MAX_BATCH or size + task.size > BATCH_BYTES):
            yield part
            part, size = [], 0
        part.append((task, value))
        size += task.size
    if part:
        yield part


def _kind(value: TaskInput) -> object:
    """What the inputs of one message have in common: an element type and a shape, or being frames."""
    return Frame if isinstance(value, Frame) else (value.dtype, value.shape)


def encode_tasks(batch: Sequence[tuple[Task, TaskInput]], sender: str | None = None) -> bytes:
    """A batch as CBOR: `{"from": device, "tasks": [{...}, ...], "inputs": array | [{"type", "data"}, ...]}`.

    Its inputs are all frames, or all activations of one element type and shape (1, ...), which travel as one
    array (N, ...).
    """
    document: dict[str, Any] = {} if sender is None else {"from": sender}
    document["tasks"] = [dict(zip(_FIELDS, _fields_of(task), strict=True)) for task, _ in batch]
    frames = [value for _, value in batch if isinstance(value, Frame)]
    if frames:
        assert len(frames) == len(batch)
        document["inputs"] = [{"type": frame.content_type, "data": frame.data} for frame in frames]
        return cbor2.dumps(document)
    # What is last in the map is a null, one byte, until an array takes the place: the encoder would walk
    # through its elements.
    opening = cbor2.dumps(document | {"inputs": None})[:-1]
    return b"".join((opening, *stacked_parts([value for _, value in batch if not isinstance(value, Frame)])))


def decode_tasks(data: bytes, stage: int) -> Batch:
    """The tasks of a batch that came on the topic of `stage`; their inputs share the message's memory.

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
    inputs = _decode_inputs(document.get("inputs"), stage, len(tasks))
    for fields, value in zip(tasks, inputs, strict=True):
        if not isinstance(fields, dict):
            raise ProtocolError(f"a task is a map, not {type(fields).__name__}")
        fields["size"] = input_size(value)
    try:
        checked = _TASKS.validate_python(tasks)
    except ValidationError as error:
        raise ProtocolError(f"tasks: {explain(error)}") from error
    for task in checked:
        if task.stage != stage:
            raise ProtocolError(f"a task of stage {task.stage} came on the topic of stage {stage}")
    return Batch(list(zip(checked, inputs, strict=True)), sender)


def _decode_inputs(value: object, stage: int, count: int) -> list[TaskInput]:
    inputs = value if isinstance(value, list) else unpack_tensor(value)
    if (isinstance(inputs, np.ndarray) and not inputs.ndim) or len(inputs) != count:
        raise ProtocolError(f"{count} tasks need as many inputs: a list of frames or an array ({count}, ...)")
    if isinstance(inputs, list):
        return [_decode_frame(item, stage) for item in inputs]
    return [inputs[index : index + 1] for index in range(count)]


def _decode_frame(value: object, stage: int) -> Frame:
    content_type, data = (value.get("type"), value.get("data")) if isinstance(value, dict) else (None, None)
    if stage != 1 or content_type not in CONTENT_TYPES or not isinstance(data, bytes):
        raise ProtocolError("a frame as input needs 'type', 'data' and stage 1")
    if len(data) > MAX_FRAME_BYTES:
        raise ProtocolError(f"frame of {len(data)} bytes: at most {MAX_FRAME_BYTES} are taken")
    return Frame(content_type, data)
