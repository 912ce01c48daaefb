"""The JSON messages: which dataclass travels on which topic, and bytes to values and back."""

from dataclasses import dataclass
from typing import Annotated, Any, Generic, TypeVar

from pydantic import Field, TypeAdapter, ValidationError

from mqtt_mdi.core.policy import Policy
from mqtt_mdi.core.types import Count, DeviceState, FrameId, Identifier, Number, Outcome, Result
from mqtt_mdi.errors import ProtocolError

T = TypeVar("T")

MAX_JSON_BYTES = 2**20
MAX_FIRST_BYTES = 32
MAX_DECISION = 1000


@dataclass(frozen=True, slots=True)
class TruthMessage:
    """The right label of a frame; the topic names the sensor."""

    frame_id: FrameId
    label: Count


@dataclass(frozen=True, slots=True)
class PolicyReply:
    """The coordinator's answer to a policy patch: the version in force, and why not when rejected."""

    accepted: bool
    version: Count
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class CoordinatorState:
    """Whether a coordinator is there, whether it can store what it hears, what its planner decided last."""

    online: bool
    boot: Identifier
    policy_version: Count = 0
    storage_error: str | None = None
    decision: Annotated[str, Field(max_length=MAX_DECISION)] | None = None


@dataclass(frozen=True, slots=True)
class Metrics:
    """The coordinator's summary: the last window and everything since the database began."""

    throughput: Number
    answered: Count
    failed: Count
    duplicates: Count
    graded: Count
    exits: tuple[Count, ...]
    devices_online: Count
    policy_version: Count
    accuracy: Number | None = None
    latency_p50_ms: Number | None = None
    latency_p95_ms: Number | None = None


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Bytes that could not be understood: where they came, why, and how they begin (hexadecimal)."""

    reporter: Identifier
    topic: Annotated[str, Field(max_length=1024)]
    reason: Annotated[str, Field(max_length=500)]
    first_bytes: Annotated[str, Field(max_length=2 * MAX_FIRST_BYTES, pattern="^[0-9a-f]*$")] = ""
    size: Count = 0


class Codec(Generic[T]):
    """JSON of one type: strict about types and limits, ProtocolError for anything else."""

    def __init__(self, kind: Any, name: str) -> None:  # noqa: ANN401 -- a type, or an alias of one
        self.name = name
        self.adapter: TypeAdapter[T] = TypeAdapter(kind)

    def encode(self, value: T) -> bytes:
        """The value as JSON; fields that say nothing are left out."""
        return self.adapter.dump_json(value, exclude_none=True)

    def decode(self, data: bytes) -> T:
        """The value of JSON bytes."""
        if len(data) > MAX_JSON_BYTES:
            raise ProtocolError(f"{self.name} of {len(data)} bytes: at most {MAX_JSON_BYTES} are taken")
        try:
            return self.adapter.validate_json(data, strict=True)
        except ValidationError as error:
            raise ProtocolError(f"{self.name}: {explain(error)}") from error


def explain(error: ValidationError) -> str:
    """The first faults of a validation in one line: where, what was expected, what was given."""
    parts = []
    for fault in error.errors(include_url=False, include_context=False)[:3]:
        where = ".".join(map(str, fault["loc"]))[:100] or "value"
        given = repr(fault["input"][:60] if isinstance(fault["input"], str | bytes) else fault["input"])
        parts.append(f"{where}: {fault['msg']} (got {given[:60]})")
    return "; ".join(parts)


RESULT = Codec[Result](Result, "result")
OUTCOMES = Codec[list[Outcome]](Annotated[list[Outcome], Field(min_length=1, max_length=1024)], "exits")
TRUTH = Codec[TruthMessage](TruthMessage, "truth")
DEVICE_STATE = Codec[DeviceState](DeviceState, "device state")
POLICY = Codec[Policy](Policy, "policy")
POLICY_REPLY = Codec[PolicyReply](PolicyReply, "policy reply")
COORDINATOR_STATE = Codec[CoordinatorState](CoordinatorState, "coordinator state")
METRICS = Codec[Metrics](Metrics, "metrics")
DEAD_LETTER = Codec[DeadLetter](DeadLetter, "dead letter")
PATCH = Codec[dict[str, Any]](dict[str, Any], "policy patch")


def state_of(device: str, data: bytes) -> DeviceState:
    """The state that came on a device's topic; ProtocolError for that of another device, too."""
    state = DEVICE_STATE.decode(data)
    if state.device != device:
        raise ProtocolError(f"state of {state.device} on the topic of {device}")
    return state
