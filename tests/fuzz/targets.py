"""Every decoder that is fed bytes from outside: what runs it, what it may raise, what valid bytes are like.

Where a process does more than decode, the target does it, too: it tells the machine, and encodes what comes
of it for the next.
"""

import gzip
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Any
from zipfile import ZipFile

import numpy as np
from pydantic import TypeAdapter, ValidationError
from samples import COLOUR, GREY, PICTURE, chunk, npy, picture

from mqtt_mdi.bundle.arrays import write_arrays
from mqtt_mdi.bundle.manifest import MANIFEST_FILE, SHIPPED_BUNDLE, parse_manifest, read_manifest
from mqtt_mdi.bundle.sample import SAMPLE_FILE, read_sample
from mqtt_mdi.bundle.trace import TRACE_FILE, read_trace
from mqtt_mdi.core import effects, events
from mqtt_mdi.core.coordinator import Coordinator
from mqtt_mdi.core.ledger import Tally
from mqtt_mdi.core.policy import Policy
from mqtt_mdi.core.source import Source
from mqtt_mdi.core.types import DeviceState, FrameKey, Task
from mqtt_mdi.core.worker import Worker
from mqtt_mdi.datasets.fashion_mnist import read_idx
from mqtt_mdi.errors import BundleError, ConfigError, MdiError, ProtocolError
from mqtt_mdi.simulation.scenario import parse_scenario
from mqtt_mdi.wire import messages as m
from mqtt_mdi.wire.access import Users, mosquitto_acl
from mqtt_mdi.wire.asyncapi import EXAMPLES
from mqtt_mdi.wire.documents import load_yaml
from mqtt_mdi.wire.frames import CBOR, JPEG, NPY, PNG, Frame, decode_frame, encode_png, sniff
from mqtt_mdi.wire.inputs import InputSpec
from mqtt_mdi.wire.schemas import CODECS
from mqtt_mdi.wire.tasks import decode_tasks, encode_tasks
from mqtt_mdi.wire.tensors import encode_tensor
from mqtt_mdi.wire.topics import Topics

MANIFEST = read_manifest(SHIPPED_BUNDLE)
POLICY = Policy(version=1, thresholds=MANIFEST.thresholds)
ROOT = Path(__file__).parents[2]
FOLDER = Path(tempfile.mkdtemp(prefix="fuzz-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
NPY_MAGIC = b"\x93NUMPY"


@dataclass(frozen=True)
class Target:
    """A decoder; `share` says how many inputs it gets, of one in which others get 1.

    `topics` are those of the protocol, below a pipeline's root, where bytes come to it.
    """

    run: Callable[[bytes], object]
    errors: tuple[type[MdiError], ...]
    seeds: tuple[bytes, ...]
    topics: tuple[str, ...] = ()
    share: float = 1.0


def there_and_back(name: str, data: bytes) -> Any:  # noqa: ANN401 -- whatever the message says
    codec = CODECS[name]
    value = codec.decode(data)
    assert codec.decode(codec.encode(value)) == value
    return value


def patch(data: bytes) -> None:
    """What the coordinator does with a change of the policy: one answer, and a policy others can read."""
    machine = Coordinator(POLICY, MANIFEST.profiles, Tally(), Random(0))
    machine.handle(events.Started(), 0.0)
    ordered = machine.handle(events.PatchRequested(m.PATCH.decode(data), None), 1.0)
    [answer] = [effect for effect in ordered if isinstance(effect, effects.AnswerPatch)]
    published = [effect.policy for effect in ordered if isinstance(effect, effects.PublishPolicy)]
    assert (answer.reason is None) == bool(published)
    for policy in published:
        assert m.POLICY.decode(m.POLICY.encode(policy)) == policy
        obey(policy)


def obey(policy: Policy) -> None:
    worker = Worker(DeviceState("device-1", "1"), POLICY, MANIFEST.stage_count, Random(0))
    hand_on(worker.handle(events.StagesReady(frozenset({1, 2})), 0.0))
    hand_on(worker.handle(events.PolicyChanged(policy), 1.0))
    worker.check()


def policy(data: bytes) -> None:
    obey(there_and_back("policy", data))


def device_state(data: bytes) -> None:
    """What a neighbour and the coordinator do with it; what they say then must be readable."""
    state = there_and_back("device-state", data)
    worker = Worker(DeviceState("device-1", "1"), POLICY, MANIFEST.stage_count, Random(0))
    machine = Coordinator(POLICY, MANIFEST.profiles, Tally(), Random(0))
    for event in (events.Started(), events.NeighbourReported(state), events.TimerFired("report")):
        hand_on(worker.handle(event, 100.0))
    worker.check()
    for event in (events.Started(), events.NeighbourReported(state), events.TimerFired("window")):
        machine.handle(event, 100.0)


def exits(data: bytes) -> None:
    source = Source("source-1", POLICY, MANIFEST.stage_count, MANIFEST.classes)
    source.handle(events.FrameArrived(FrameKey("cam1", "b2-17"), 100), 0.0)
    for outcome in there_and_back("exits", data):
        hand_on(source.handle(events.OutcomeReported(outcome), 1.0))
    source.check()


def tasks(stage: int, data: bytes) -> None:
    batch = decode_tasks(data, stage)
    again = decode_tasks(encode_tasks(batch.tasks, batch.sender), stage)
    assert [task for task, _ in again.tasks] == [task for task, _ in batch.tasks]
    worker = Worker(DeviceState("device-1", "1"), POLICY, MANIFEST.stage_count, Random(0))
    worker.handle(events.StagesReady(frozenset({stage})), 0.0)
    for task, _ in batch.tasks:
        hand_on(worker.handle(events.TaskArrived(task, batch.sender), 1.0))
    worker.check()


def hand_on(ordered: list[Any]) -> None:
    """Encode what a machine orders to be published, and read it as its hearers do."""
    for effect in ordered:
        match effect:
            case effects.PublishState(state):
                assert m.DEVICE_STATE.decode(m.DEVICE_STATE.encode(state)) == state
            case effects.ReportOutcome(_, outcome):
                assert m.OUTCOMES.decode(m.OUTCOMES.encode([outcome])) == [outcome]
            case effects.PublishResult(result):
                assert m.RESULT.decode(m.RESULT.encode(result)) == result


def frame(kind: str | None, spec: InputSpec, data: bytes) -> None:
    found = decode_frame(sniff(data, kind), spec)
    assert found.shape == (1, *spec.shape)
    assert found.dtype == np.float32
    assert np.isfinite(found).all()


def png(data: bytes) -> None:
    """A PNG as it comes, and with the check sums set right, which random changes would never do."""
    out, at = bytearray(data[:8]), 8
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4])
        name, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        out += chunk(name, body)
        at += 12 + length
    for each in {bytes(out) + data[at:], data}:
        frame(PNG, COLOUR, each)


def topic(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    found = Topics("demo").parse(text)
    assert found.kind.split("/")[0] in text


def manifest(data: bytes) -> None:
    found = parse_manifest(data, "the manifest received")
    assert len(found.profiles) == len(found.macs_shares) == found.stage_count
    Worker(DeviceState("device-1", "1"), Policy(thresholds=found.thresholds), found.stage_count, Random(0))


def in_file(read: Callable[[Path], object], name: str, data: bytes) -> Any:  # noqa: ANN401
    path = FOLDER / name
    path.write_bytes(data)
    return read(path)


def arrays(read: Callable[[Path], object], file: str, names: tuple[str, ...], data: bytes) -> Any:  # noqa: ANN401
    """An .npz file, or its arrays one after the other: a zip's check sums keep random changes out."""
    if data.startswith(NPY_MAGIC):
        parts = [NPY_MAGIC + part for part in data.split(NPY_MAGIC)[1:]]
        with ZipFile(FOLDER / file, "w") as stored:
            for name, part in zip(names, parts, strict=False):
                stored.writestr(f"{name}.npy", part)
    else:
        (FOLDER / file).write_bytes(data)
    return read(FOLDER)


def users(data: bytes) -> None:
    try:
        named = USERS.validate_python(load_yaml(data, "users.yaml"))
    except ValidationError as error:
        raise ConfigError(str(error)) from error
    mosquitto_acl(named)


USERS: TypeAdapter[Users] = TypeAdapter(Users)
ACTIVATION = np.linspace(-1, 1, 8, dtype=np.float32).reshape(1, 2, 2, 2)
SAMPLE = {
    "pictures": PICTURE[None],
    "labels": np.array([3], np.int16),
    "indices": np.array([7], np.int32),
}
TRACE = {
    "score": np.array([[0.5, 0.75]], np.float32),
    "label": np.array([[3, 4]], np.int16),
    "truth": np.array([3], np.int16),
}


def batch(stage: int, *inputs: Any) -> bytes:  # noqa: ANN401 -- arrays and frames
    made = [(Task("cam1", f"b2-{n}", "source-1", stage), value) for n, value in enumerate(inputs)]
    return encode_tasks(made, "device-2")


def stored(folder: str, kept: dict[str, Any]) -> tuple[bytes, ...]:
    path = FOLDER / folder
    write_arrays(path, **kept)
    return (path.read_bytes(), b"".join(npy(array) for array in kept.values()))


def example(name: str, run: Callable[[bytes], object], *topics: str, seeds: tuple[bytes, ...] = ()) -> Target:
    return Target(run, (ProtocolError,), (EXAMPLES[name], *seeds), topics)


PATCHES = (
    b'{"placement": {"device-1": [1, 2]}, "strategy": "planner", "planning": {"goal": "rate", "rate": 9.5}}',
    b'{"shares": {"device-1": {"2": {"device-2": 0.5}}}, "admission": {"rule": "paced"}, "window": null}',
)
TARGETS = {
    "result": example("result", partial(there_and_back, "result"), "results/cam1"),
    "exits": example("exits", exits, "exits/source-1"),
    "truth": example("truth", partial(there_and_back, "truth"), "truth/cam1"),
    "device-state": example("device-state", device_state, "devices/device-2/state"),
    "policy": example("policy", policy, "policy"),
    "policy-patch": example("policy-patch", patch, "policy/set", seeds=PATCHES),
    "policy-reply": example("policy-reply", partial(there_and_back, "policy-reply"), "policy/result"),
    "coordinator-state": example(
        "coordinator-state", partial(there_and_back, "coordinator-state"), "coordinator/state"
    ),
    "metrics": example("metrics", partial(there_and_back, "metrics"), "metrics"),
    "dead-letter": example("dead-letter", partial(there_and_back, "dead-letter"), "deadletter/device-1"),
    "tasks-1": Target(
        partial(tasks, 1),
        (ProtocolError,),
        (batch(1, encode_png(PICTURE), Frame(CBOR, encode_tensor(PICTURE))), batch(1, ACTIVATION)),
        ("stage/1/device-1", "stage/1/any"),
    ),
    "tasks-2": Target(
        partial(tasks, 2), (ProtocolError,), (batch(2, ACTIVATION, ACTIVATION),), ("stage/2/device-2",)
    ),
    "frame-any": Target(
        partial(frame, None, GREY), (ProtocolError,), (encode_tensor(PICTURE), npy(PICTURE)), ("frames/cam1",)
    ),
    "frame-jpeg": Target(
        partial(frame, JPEG, GREY),
        (ProtocolError,),
        (picture("RGB", "JPEG"), picture("CMYK", "JPEG"), picture("L", "JPEG", progressive=True)),
        ("frames/cam2",),
    ),
    "frame-png": Target(
        png,
        (ProtocolError,),
        tuple(picture(mode, "PNG") for mode in ("RGB", "P", "LA", "I;16", "1")),
        ("frames/cam3",),
    ),
    "frame-npy": Target(
        partial(frame, NPY, COLOUR),
        (ProtocolError,),
        (npy(PICTURE), npy(np.zeros(GREY.shape, "<f4")), npy(np.asfortranarray(PICTURE.astype(">u2")))),
        ("frames/cam4",),
    ),
    "frame-cbor": Target(
        partial(frame, CBOR, COLOUR),
        (ProtocolError,),
        (encode_tensor(PICTURE), encode_tensor(np.zeros(COLOUR.shape, "<f2"))),
        ("frames/cam5",),
    ),
    "topic": Target(
        topic, (ProtocolError,), (b"mdi/v1/demo/stage/2/device-1", b"mdi/v1/demo/devices/pi/state")
    ),
    "manifest": Target(
        manifest, (BundleError,), ((SHIPPED_BUNDLE / MANIFEST_FILE).read_bytes(),), ("model/manifest",)
    ),
    "trace": Target(
        partial(arrays, read_trace, TRACE_FILE, tuple(TRACE)),
        (BundleError,),
        stored(TRACE_FILE, TRACE),
        share=0.2,
    ),
    "sample": Target(
        lambda data: [
            encode_png(one) for one in arrays(read_sample, SAMPLE_FILE, tuple(SAMPLE), data).pictures
        ],
        (BundleError,),
        stored(SAMPLE_FILE, SAMPLE),
        share=0.2,
    ),
    "idx": Target(
        partial(in_file, read_idx, "idx"),
        (ConfigError,),
        (b"\0\0\x08\1\0\0\0\2ab", b"\0\0\x08\3" + bytes(2) + b"\0\1\0\0\0\2\0\0\0\1ab"),
    ),
    "idx-gz": Target(
        partial(in_file, read_idx, "idx.gz"),
        (ConfigError,),
        (gzip.compress(b"\0\0\x08\1\0\0\0\2ab", mtime=0),),
    ),
    "scenario": Target(
        partial(parse_scenario, where="scenario"),
        (ConfigError,),
        tuple(path.read_bytes() for path in sorted((ROOT / "benchmarks" / "scenarios").glob("*.yaml"))),
        share=0.05,
    ),
    "users": Target(
        users, (ConfigError,), (b"demo:\n  device: [pi-1, pi-2]\n  sensor: [cam1]\n",), share=0.2
    ),
}
"""By name, which is also that of the corpus folder."""
