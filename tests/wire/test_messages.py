import dataclasses
import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mangling import mangled

from mqtt_mdi.core.policy import Planning, Policy
from mqtt_mdi.core.types import DeviceState, Echo, Outcome, Result
from mqtt_mdi.errors import ProtocolError
from mqtt_mdi.wire import messages as m
from mqtt_mdi.wire.asyncapi import EXAMPLES
from mqtt_mdi.wire.schemas import CODECS

NAMES = st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True)
FRAME_IDS = st.from_regex(r"[A-Za-z0-9_.:-]{1,128}", fullmatch=True)
STAGES = st.integers(1, 64)
COUNTS = st.integers(0, 2**31)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
POSITIVE = st.floats(0, 1e12)
REASONS = st.text(max_size=200)


def or_none(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


VALUES = {
    "result": st.builds(
        Result,
        sensor=NAMES,
        frame_id=FRAME_IDS,
        status=st.sampled_from(["ok", "failed"]),
        label=or_none(COUNTS),
        class_name=or_none(REASONS),
        score=or_none(NUMBERS),
        exit_stage=or_none(STAGES),
        device=or_none(NAMES),
        latency_ms=POSITIVE,
        hops=COUNTS,
        attempts=COUNTS,
        policy_version=COUNTS,
        reason=or_none(REASONS),
    ),
    "exits": st.lists(
        st.builds(
            Outcome,
            sensor=NAMES,
            frame_id=FRAME_IDS,
            attempt=st.integers(1, 100),
            stage=STAGES,
            device=NAMES,
            hops=COUNTS,
            label=or_none(COUNTS),
            score=or_none(NUMBERS),
            reason=or_none(REASONS),
            retry=st.booleans(),
        ),
        min_size=1,
        max_size=4,
    ),
    "truth": st.builds(m.TruthMessage, frame_id=FRAME_IDS, label=COUNTS),
    "device-state": st.builds(
        DeviceState,
        device=NAMES,
        boot=NAMES,
        online=st.booleans(),
        role=st.sampled_from(["device", "source"]),
        stages=st.lists(STAGES, max_size=4).map(tuple),
        input_queue=COUNTS,
        output_queue=COUNTS,
        running=st.integers(0, 1),
        service_s=POSITIVE,
        service_by_stage=st.dictionaries(STAGES, POSITIVE, max_size=4),
        counters=st.dictionaries(st.text(min_size=1, max_size=64), COUNTS, max_size=4),
        policy_version=COUNTS,
        memory=or_none(COUNTS),
        stamp=NUMBERS,
        delays=st.dictionaries(NAMES, POSITIVE, max_size=4),
        echoes=st.dictionaries(
            NAMES, st.builds(Echo, stamp=NUMBERS, held_s=POSITIVE, received=COUNTS), max_size=4
        ),
    ),
    "policy": st.builds(
        Policy,
        version=COUNTS,
        thresholds=st.lists(NUMBERS, max_size=6).map(tuple),
        placement=st.dictionaries(NAMES, st.lists(STAGES, max_size=4).map(tuple), max_size=4),
        strategy=NAMES,
        planning=st.builds(
            Planning,
            goal=st.just("accuracy"),
            accuracy=st.floats(0.001, 1),
            rate=or_none(st.floats(0.001, 1e6)),
            patience_s=st.floats(0, 60),
        ),
        shares=st.dictionaries(
            NAMES,
            st.dictionaries(STAGES, st.dictionaries(NAMES, st.floats(0, 1), max_size=3), max_size=3),
            max_size=3,
        ),
        neighbours=st.dictionaries(NAMES, st.lists(NAMES, max_size=4).map(tuple), max_size=4),
        window=st.integers(1, 100_000),
        lease_s=st.floats(0.001, 3600),
        data_qos=st.sampled_from([0, 1]),
    ),
    "policy-reply": st.builds(m.PolicyReply, accepted=st.booleans(), version=COUNTS, reason=or_none(REASONS)),
    "coordinator-state": st.builds(
        m.CoordinatorState,
        online=st.booleans(),
        boot=NAMES,
        policy_version=COUNTS,
        storage_error=or_none(REASONS),
        decision=or_none(st.text(max_size=m.MAX_DECISION)),
    ),
    "metrics": st.builds(
        m.Metrics,
        throughput=NUMBERS,
        answered=COUNTS,
        failed=COUNTS,
        duplicates=COUNTS,
        graded=COUNTS,
        exits=st.lists(COUNTS, max_size=4).map(tuple),
        devices_online=COUNTS,
        policy_version=COUNTS,
        accuracy=or_none(NUMBERS),
        latency_p50_ms=or_none(NUMBERS),
        latency_p95_ms=or_none(NUMBERS),
    ),
    "dead-letter": st.builds(
        m.DeadLetter,
        reporter=NAMES,
        topic=st.text(max_size=200),
        reason=REASONS,
        first_bytes=st.binary(max_size=32).map(bytes.hex),
        size=COUNTS,
    ),
}


@pytest.mark.parametrize("name", CODECS)
@settings(deadline=None, max_examples=20)
@given(data=st.data())
def test_every_message_comes_back_as_it_was(name: str, data: st.DataObject) -> None:
    value = data.draw(VALUES[name])
    assert CODECS[name].decode(CODECS[name].encode(value)) == value


def test_a_patch_keeps_its_nulls() -> None:
    patch = {"window": None, "placement": {"d1": None}, "thresholds": [0.5]}
    assert m.PATCH.decode(m.PATCH.encode(patch)) == patch


def test_what_says_nothing_is_left_out() -> None:
    assert m.TRUTH.encode(m.TruthMessage("a", 1)) == b'{"frame_id":"a","label":1}'
    assert b"reason" not in m.POLICY_REPLY.encode(m.PolicyReply(accepted=True, version=1))


def test_fields_of_later_versions_are_passed_over_but_a_policy_has_none() -> None:
    assert m.TRUTH.decode(b'{"frame_id":"a","label":1,"sure":true}').label == 1
    with pytest.raises(ProtocolError, match="wnidow"):
        m.POLICY.decode(b'{"thresholds":[],"wnidow":1}')


@pytest.mark.parametrize("name", CODECS)
@settings(deadline=None, max_examples=70)
@given(data=st.data())
def test_any_bytes_give_a_message_or_a_protocol_error(name: str, data: st.DataObject) -> None:
    raw = data.draw(mangled([EXAMPLES[name]]))
    with suppress(ProtocolError):
        assert CODECS[name].decode(raw)


@pytest.mark.parametrize("codec", [*CODECS.values(), m.PATCH], ids=lambda codec: codec.name)
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"null",
        b"[]",
        b"1",
        b'"a"',
        b"{",
        b'{"a":1}x',
        b'{"\xed\xa0\x80":1}',
        b'{"\\ud800":1}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"label":' + b"9" * 5000 + b"}",
        b" " * (m.MAX_JSON_BYTES + 1),
    ],
    ids=range(14),
)
def test_what_is_no_such_json_is_refused(codec: m.Codec[Any], data: bytes) -> None:
    with pytest.raises(ProtocolError):
        codec.decode(data)


BAD: list[tuple[str, dict[str, Any]]] = [
    ("result", {"sensor": "a/b"}),
    ("result", {"sensor": "a\n"}),
    ("result", {"sensor": "a" * 65}),
    ("result", {"frame_id": ""}),
    ("result", {"frame_id": "a b"}),
    ("result", {"status": "maybe"}),
    ("result", {"label": -1}),
    ("result", {"label": "7"}),
    ("result", {"label": True}),
    ("result", {"label": 1.5}),
    ("result", {"score": float("nan")}),
    ("result", {"score": float("inf")}),
    ("result", {"score": "0.5"}),
    ("result", {"latency_ms": -1}),
    ("result", {"exit_stage": 0}),
    ("result", {"exit_stage": 65}),
    ("result", {"reason": "a" * 501}),
    ("truth", {"label": None}),
    ("truth", {"label": 10**30}),
    ("device-state", {"online": "true"}),
    ("device-state", {"role": "boss"}),
    ("device-state", {"stages": 3}),
    ("device-state", {"stages": [0]}),
    ("device-state", {"stages": [1] * 65}),
    ("device-state", {"running": 2}),
    ("device-state", {"service_s": -0.1}),
    ("device-state", {"service_by_stage": {"1": -1}}),
    ("device-state", {"counters": {"": 1}}),
    ("device-state", {"counters": {"a": -1}}),
    ("device-state", {"echoes": {"a/b": {"stamp": 0, "held_s": 0}}}),
    ("device-state", {"echoes": {"a": {"stamp": 0}}}),
    ("device-state", {"echoes": {"a": {"stamp": 0, "held_s": 0, "received": -1}}}),
    ("device-state", {"delays": {"a": -1}}),
    ("device-state", {"delays": {"a/b": 1}}),
    ("device-state", {"delays": {"a": float("inf")}}),
    ("device-state", {"memory": -1}),
    ("device-state", {"memory": 1.5}),
    ("policy", {"thresholds": "0.5"}),
    ("policy", {"thresholds": [float("nan")]}),
    ("policy", {"thresholds": [0.5] * 64}),
    ("policy", {"placement": {"a b": [1]}}),
    ("policy", {"placement": {"a": [65]}}),
    ("policy", {"window": 0}),
    ("policy", {"strategy": ""}),
    ("policy", {"strategy": "no spaces"}),
    ("policy", {"shares": {"a": {"1": {"b": 1.5}}}}),
    ("policy", {"shares": {"a": {"1": {"b": -0.5}}}}),
    ("policy", {"neighbours": {"a": ["b c"]}}),
    ("policy", {"neighbours": {"a": "b"}}),
    ("policy", {"planning": {"goal": "speed"}}),
    ("policy", {"planning": {"goal": "accuracy", "accuracy": 1.5}}),
    ("policy", {"planning": {"patience_s": -1}}),
    ("policy", {"planning": {"tea": 1}}),
    ("policy", {"data_qos": 2}),
    ("policy", {"unknown": 1}),
    ("policy-reply", {"accepted": 1}),
    ("policy-reply", {"version": -1}),
    ("coordinator-state", {"boot": ""}),
    ("coordinator-state", {"decision": "a" * 1001}),
    ("metrics", {"throughput": "fast"}),
    ("metrics", {"accuracy": float("nan")}),
    ("metrics", {"exits": [-1]}),
    ("dead-letter", {"first_bytes": "xyz"}),
    ("dead-letter", {"first_bytes": "ab" * 33}),
    ("dead-letter", {"topic": "a" * 1025}),
]
"""Each a valid message with one field changed."""

BAD_BEYOND_SCHEMAS: list[tuple[str, dict[str, Any]]] = [
    ("device-state", {"service_by_stage": {"0": 1.0}}),
    ("policy", {"shares": {"a": {"0": {"b": 0.5}}}}),
    ("policy", {"shares": {"a": {"1": {"b c": 0.5}}}}),
    ("policy", {"planning": {"goal": "rate"}}),
]
"""The same, where the JSON Schema would let it pass: keys that are numbers, names within maps, relations."""


@pytest.mark.parametrize(("name", "change"), [*BAD, *BAD_BEYOND_SCHEMAS])
def test_a_field_beyond_its_limits_is_refused_and_named(name: str, change: dict[str, Any]) -> None:
    message = json.loads(EXAMPLES[name]) | change
    with pytest.raises(ProtocolError, match=next(iter(change))):
        CODECS[name].decode(json.dumps(message).encode())


@pytest.mark.parametrize("name", CODECS)
def test_a_message_without_a_needed_field_is_refused(name: str) -> None:
    message = json.loads(EXAMPLES[name])
    fields = message[0] if name == "exits" else message
    kind = {"exits": Outcome, "policy": Policy}.get(name) or type(CODECS[name].decode(EXAMPLES[name]))
    if kind is Policy:
        needed = ["thresholds"]
    else:
        needed = [
            field.name
            for field in dataclasses.fields(kind)
            if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        ]
    assert needed
    for field in needed:
        without = {key: value for key, value in fields.items() if key != field}
        with pytest.raises(ProtocolError, match=field):
            CODECS[name].decode(json.dumps([without] if name == "exits" else without).encode())


@pytest.mark.parametrize("count", [0, 1025])
def test_a_batch_of_exits_has_1_to_1024(count: int) -> None:
    outcome = json.loads(EXAMPLES["exits"])
    with pytest.raises(ProtocolError):
        m.OUTCOMES.decode(json.dumps(outcome * count).encode())
