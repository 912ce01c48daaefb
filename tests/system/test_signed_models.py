"""What devices with the coordinator's public key run, and what they run without, at a broker open to all."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from live import Broker, Pipeline, mqtt_mdi

from mqtt_mdi.bundle.manifest import SHIPPED_BUNDLE
from mqtt_mdi.bundle.sample import read_sample
from mqtt_mdi.bundle.sealed import SIGNATURE_PROPERTY, signature_to_text
from mqtt_mdi.bundle.signature import new_key, private_pem, public_pem, sign
from mqtt_mdi.wire.frames import encode_png

PICTURE = encode_png(read_sample(SHIPPED_BUNDLE).pictures[0]).data
THEIRS = SHIPPED_BUNDLE.with_name("fashion-mnist-static")
"""A whole model of one stage, as an attacker would publish it."""


@dataclass(frozen=True)
class Keys:
    """The files of a key pair."""

    private: Path
    public: Path


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    found = Keys(tmp_path / "model.key", tmp_path / "model.pub")
    key = new_key()
    found.private.write_bytes(private_pem(key))
    found.public.write_bytes(public_pem(key))
    return found


def answer(pipeline: Pipeline, sensor: str) -> dict[str, Any]:
    pipeline.send(sensor, PICTURE)
    (found,) = pipeline.answers(sensor, 1)
    return {name: found.get(name) for name in ("status", "label", "exit_stage", "score")}


def attack(pipeline: Pipeline, **properties: object) -> None:
    """Publish another model, graph and manifest, for devices that are there and that will come."""
    topics, client = pipeline.topics, pipeline.client
    client.publish(topics.model_stage(1), (THEIRS / "stage-1.onnx").read_bytes(), retain=True)
    client.publish(topics.manifest, (THEIRS / "manifest.json").read_bytes(), retain=True, **properties)


def signed_by_a_stranger() -> list[tuple[str, str]]:
    text = signature_to_text(sign((THEIRS / "manifest.json").read_bytes(), new_key()))
    return [(SIGNATURE_PROPERTY, text)]


def counters(pipeline: Pipeline, device: str) -> dict[str, int]:
    state = pipeline.client.last(pipeline.topics.device(device))
    assert state is not None
    found: dict[str, int] = state.json["counters"]
    return found


def test_with_a_key_no_other_model_runs(
    mosquitto: Broker, new_pipeline: Callable[[Broker], Pipeline], keys: Keys
) -> None:
    pipeline = new_pipeline(mosquitto)
    asking = ("--model-key", str(keys.public))
    processes = [
        pipeline.device("device-1", "all", *asking),
        pipeline.source("source-1", "none", *asking, "--spool", "source.spool"),
    ]
    coordinator = pipeline.coordinator("--sign-with", str(keys.private))
    pipeline.ready("device-1", 1, 2, 3, 4)
    pipeline.ready("source-1")
    before = answer(pipeline, "before")
    assert before["status"] == "ok"

    attack(pipeline)
    for name in ("device-1", "source-1"):
        letter = pipeline.dead_letter(name, "the manifest received is not signed")
        assert letter["topic"] == pipeline.topics.manifest
    attack(pipeline, UserProperty=signed_by_a_stranger())
    for name in ("device-1", "source-1"):
        pipeline.dead_letter(name, "wrong signature: the manifest received was changed, or signed with")
    attack(pipeline, UserProperty=[(SIGNATURE_PROPERTY, "x")])
    for name in ("device-1", "source-1"):
        pipeline.dead_letter(name, "the signature of the manifest received is none: expected 64 bytes")
    assert answer(pipeline, "after") == before

    # Who comes now finds nothing but the attacker's model, until the coordinator publishes its own again.
    late = pipeline.device("device-2", "1", *asking)
    pipeline.dead_letter("device-2", "the signature of the manifest received is none")
    assert coordinator.stop() == 0
    pipeline.coordinator("--sign-with", str(keys.private))
    pipeline.ready("device-2", 1)
    assert counters(pipeline, "device-2")["unverified_models"] == 0
    assert "has model fashion-mnist of 4 stages" in late.said()
    for process in (*processes, late):
        assert "UNSIGNED" not in process.said()
        assert "of 1 stages" not in process.said()
    assert "UNSIGNED" not in coordinator.said()


def test_without_a_key_any_model_runs_with_a_warning(
    mosquitto: Broker, new_pipeline: Callable[[Broker], Pipeline]
) -> None:
    pipeline = new_pipeline(mosquitto)
    device = pipeline.device("device-1", "1")
    coordinator = pipeline.coordinator()
    pipeline.ready("device-1", 1)
    attack(pipeline, UserProperty=signed_by_a_stranger())
    device.wait_to_say("has model fashion-mnist of 1 stages")
    pipeline.client.wait_for_last(
        pipeline.topics.device("device-1"), lambda said: said["counters"]["unverified_models"] > 1
    )
    assert device.said().count("WARNING UNSIGNED MODELS: device-1 has no --model-key") == 1
    assert coordinator.said().count("WARNING UNSIGNED MODEL: devices with a --model-key will refuse it") == 1


def test_a_bundle_signed_elsewhere_needs_no_key_at_the_coordinator(
    mosquitto: Broker, new_pipeline: Callable[[Broker], Pipeline], keys: Keys, tmp_path: Path
) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(SHIPPED_BUNDLE, bundle)
    signed = mqtt_mdi("sign", str(bundle), "--key", str(keys.private))
    assert signed.returncode == 0, signed.stderr
    pipeline = new_pipeline(mosquitto)
    pipeline.device("device-1", "1,2,3,4", "--model-key", str(keys.public))
    pipeline.source("source-1", "none", "--bundle", str(bundle), "--model-key", str(keys.public))
    pipeline.coordinator("--bundle", str(bundle))
    pipeline.ready("device-1", 1, 2, 3, 4)
    pipeline.ready("source-1")
    assert answer(pipeline, "cam")["status"] == "ok"


@pytest.mark.parametrize("role", ["device", "source"])
def test_a_folder_must_be_signed_too(
    mosquitto: Broker, new_pipeline: Callable[[Broker], Pipeline], keys: Keys, tmp_path: Path, role: str
) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(SHIPPED_BUNDLE, bundle)
    pipeline = new_pipeline(mosquitto)
    arguments = ("--bundle", str(bundle), "--model-key", str(keys.public))
    unsigned = pipeline.start(role, *arguments)
    assert unsigned.ended() == 4
    assert f"error: {bundle}/manifest.json is not signed" in unsigned.said()
    stranger = tmp_path / "stranger.key"
    stranger.write_bytes(private_pem(new_key()))
    assert mqtt_mdi("sign", str(bundle), "--key", str(stranger)).returncode == 0
    wrongly = pipeline.start(role, *arguments)
    assert wrongly.ended() == 4
    assert f"error: wrong signature: {bundle}/manifest.json was changed" in wrongly.said()
    assert "holds stage" not in unsigned.said() + wrongly.said()
