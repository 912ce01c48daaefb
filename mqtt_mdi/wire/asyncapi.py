"""The AsyncAPI 3.1 document: every topic, what travels on it, who sends and who receives it."""

import json
from dataclasses import dataclass
from typing import Any

from mqtt_mdi.core.policy import Policy
from mqtt_mdi.core.types import FRAME_ID, IDENTIFIER, DeviceState, Echo, Outcome, Result
from mqtt_mdi.wire import messages as m
from mqtt_mdi.wire.frames import CBOR, JPEG, NPY, PNG
from mqtt_mdi.wire.topics import PREFIX

BINDING = "0.2.0"
"""Version of AsyncAPI's MQTT bindings."""

_DATA = "Quality of service as the policy's data_qos says."
_NAME = f"It matches {IDENTIFIER}."
PARAMETERS = {
    "pipeline": f"Keeps services on one broker apart. {_NAME}",
    "sensor": f"Names a sensor. {_NAME}",
    "device": f"Names a device, the source among them; none is called any. {_NAME}",
    "source": f"Names the device that admitted the frames. {_NAME}",
    "stage": "Number of a stage, 1 to 64.",
    "reporter": f"Names the process that got the bytes. {_NAME}",
}

JSON_MESSAGES = {
    "result": "The one answer to a frame.",
    "exits": "What became of frames at a device: an array of exits taken and of failures.",
    "truth": "The right label of a frame, which may come late.",
    "device-state": "What a device says of itself; no bytes at all when it is gone for good.",
    "policy": "Every constant of the running system.",
    "policy-patch": "A JSON merge patch (RFC 7396).",
    "policy-reply": "Whether the patch was accepted, and the version in force.",
    "coordinator-state": "Whether a coordinator is there, and whether it can store what it hears.",
    "metrics": "Sums over the last second and since the database began.",
    "dead-letter": "Where bytes came from, why they could not be understood, and how they begin.",
}
BINARY_MESSAGES = {
    "frame-jpeg": (JPEG, "A JPEG picture."),
    "frame-png": (PNG, "A PNG picture."),
    "frame-npy": (
        NPY,
        "An array as numpy.save writes it (NEP 1): integers from 0 to 255, or the model's input.",
    ),
    "frame-cbor": (
        CBOR,
        "An array as RFC 8746 has it: integers from 0 to 255, or the model's input as floats.",
    ),
    "tasks": (
        CBOR,
        "A batch of tasks of one stage, their inputs as one typed array (RFC 8746) or frames: tasks.cddl.",
    ),
    "stage-graph": ("application/octet-stream", "The ONNX graph of a stage; the manifest holds its SHA-256."),
}


@dataclass(frozen=True, slots=True)
class Channel:
    """A topic: its messages, its writers and readers; `qos` is None where it is not fixed."""

    address: str
    about: str
    messages: tuple[str, ...]
    writers: tuple[str, ...]
    readers: tuple[str, ...]
    qos: int | None = 1
    retained: bool = False
    reply: str = ""


_FRAMES = ("frame-jpeg", "frame-png", "frame-npy", "frame-cbor")
_COORDINATOR, _DEVICES = ("coordinator",), ("device", "source")
CHANNELS = {
    "frames": Channel(
        "frames/{sensor}",
        "Samples from any MQTT client, 3.1.1 too, with quality 0 or 1. The format is read from the content "
        "type or else from the first bytes. Correlation data is the sensor's own frame id; a response topic "
        "gets the result, too.",
        _FRAMES,
        ("sensor",),
        ("source",),
        qos=None,
    ),
    "stageDevice": Channel(
        "stage/{stage}/{device}", f"Tasks for one device. {_DATA}", ("tasks",), _DEVICES, _DEVICES, qos=None
    ),
    "stageAny": Channel(
        "stage/{stage}/any",
        "Tasks for whichever device holds the stage; devices subscribe to it as "
        f"$share/stage-{{stage}}/{PREFIX}/{{pipeline}}/stage/{{stage}}/any. {_DATA}",
        ("tasks",),
        _DEVICES,
        _DEVICES,
        qos=None,
    ),
    "exits": Channel(
        "exits/{source}", "What became of a source's frames.", ("exits",), _DEVICES, ("source",)
    ),
    "results": Channel(
        "results/{sensor}", "Answers, one a frame.", ("result",), ("source",), ("sensor", "coordinator")
    ),
    "truth": Channel("truth/{sensor}", "Right labels.", ("truth",), ("labeller",), _COORDINATOR),
    "deviceState": Channel(
        "devices/{device}/state",
        "A device's own state; its last will says that it is offline.",
        ("device-state",),
        _DEVICES,
        (*_DEVICES, "sensor", "coordinator"),
        qos=0,
        retained=True,
    ),
    "policy": Channel(
        "policy", "The policy in force.", ("policy",), _COORDINATOR, (*_DEVICES, "operator"), retained=True
    ),
    "policySet": Channel(
        "policy/set",
        "Changes of the policy. The answer goes to the response topic with the correlation data, or else "
        "to policy/result.",
        ("policy-patch",),
        ("operator",),
        _COORDINATOR,
        reply="policyResult",
    ),
    "policyResult": Channel(
        "policy/result", "Answers to changes.", ("policy-reply",), _COORDINATOR, ("operator",)
    ),
    "modelManifest": Channel(
        "model/manifest",
        "What the model is made of: manifest.json of its bundle, byte for byte, with its signature.",
        ("manifest",),
        _COORDINATOR,
        (*_DEVICES, "sensor"),
        retained=True,
    ),
    "modelStage": Channel(
        "model/stage/{stage}",
        "The graph of a stage.",
        ("stage-graph",),
        _COORDINATOR,
        _DEVICES,
        retained=True,
    ),
    "metrics": Channel(
        "metrics", "A summary once a second.", ("metrics",), _COORDINATOR, ("dashboard",), 0, retained=True
    ),
    "coordinatorState": Channel(
        "coordinator/state",
        "The coordinator's own state; its last will says that it is offline.",
        ("coordinator-state",),
        _COORDINATOR,
        ("dashboard", "operator"),
        retained=True,
    ),
    "deadletter": Channel(
        "deadletter/{reporter}",
        "Reports of bytes that could not be understood.",
        ("dead-letter",),
        (*_DEVICES, "sensor", "coordinator"),
        ("coordinator", "operator"),
    ),
}

_OUTCOME = Outcome("cam1", "b2-17", 1, 2, "device-2", hops=1, label=7, score=0.97)
_STATE = DeviceState(
    "device-2",
    "5f1c",
    stages=(2, 3),
    input_queue=4,
    running=1,
    service_s=0.0021,
    service_by_stage={2: 0.0018, 3: 0.0024},
    counters={"completed": 512},
    policy_version=3,
    stamp=81.5,
    echoes={"device-1": Echo(80.25, 0.125)},
)
EXAMPLES = {
    "result": m.RESULT.encode(
        Result("cam1", "b2-17", "ok", 7, "Sneaker", 0.97, 2, "device-2", 12.5, 1, policy_version=3)
    ),
    "exits": m.OUTCOMES.encode([_OUTCOME]),
    "truth": m.TRUTH.encode(m.TruthMessage("b2-17", 7)),
    "device-state": m.DEVICE_STATE.encode(_STATE),
    "policy": m.POLICY.encode(Policy(version=3, thresholds=(0.9, 0.8, 0.7), placement={"device-2": (2, 3)})),
    "policy-patch": b'{"thresholds": [0.99, 0.99, 0.99], "window": null}',
    "policy-reply": m.POLICY_REPLY.encode(m.PolicyReply(accepted=True, version=3)),
    "coordinator-state": m.COORDINATOR_STATE.encode(
        m.CoordinatorState(online=True, boot="77ab", policy_version=3)
    ),
    "metrics": m.METRICS.encode(m.Metrics(850.0, 9000, 0, 2, 8800, (5000, 2500, 1000, 500), 3, 3, 0.93)),
    "dead-letter": m.DEAD_LETTER.encode(
        m.DeadLetter("source-1", "mdi/v1/demo/frames/cam1", "empty frame: expected a picture or an array")
    ),
}
"""One JSON message of each kind as it travels."""


def document() -> dict[str, Any]:
    """The AsyncAPI document; its messages refer to the JSON Schemas beside it."""
    return {
        "asyncapi": "3.1.0",
        "info": {
            "title": "mqtt-mdi",
            "version": "1.0.0",
            "description": "One multi-exit network across several devices, over MQTT 5. Bytes that do "
            "not follow this document are answered with a dead letter and change nothing.",
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "broker": {
                "host": "localhost:1883",
                "protocol": "mqtt",
                "protocolVersion": "5",
                "description": "Any MQTT 5 broker with retained messages and last wills.",
            }
        },
        "channels": {name: _channel(channel) for name, channel in CHANNELS.items()},
        "operations": {
            f"{action}{name[0].upper()}{name[1:]}": _operation(name, channel, action)
            for name, channel in CHANNELS.items()
            for action in ("send", "receive")
        },
        "components": {"parameters": _parameters(), "messages": _messages()},
    }


def _channel(channel: Channel) -> dict[str, Any]:
    address = f"{PREFIX}/{{pipeline}}/{channel.address}"
    named = [name for name in PARAMETERS if f"{{{name}}}" in address]
    return {
        "address": address,
        "description": channel.about,
        "parameters": {name: {"$ref": f"#/components/parameters/{name}"} for name in named},
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in channel.messages},
    }


def _operation(name: str, channel: Channel, action: str) -> dict[str, Any]:
    roles = channel.writers if action == "send" else channel.readers
    binding: dict[str, Any] = {} if channel.qos is None else {"qos": channel.qos}
    if action == "send":
        binding["retain"] = channel.retained
    operation: dict[str, Any] = {
        "action": action,
        "channel": {"$ref": f"#/channels/{name}"},
        "summary": f"{'Sent' if action == 'send' else 'Received'} by: {', '.join(roles)}.",
        "tags": [{"name": role} for role in roles],
        "bindings": {"mqtt": binding | {"bindingVersion": BINDING}},
    }
    if channel.reply:
        operation["reply"] = {"channel": {"$ref": f"#/channels/{channel.reply}"}}
    return operation


def _parameters() -> dict[str, Any]:
    examples = {"stage": "2", "sensor": "cam1", "pipeline": "demo"}
    return {
        name: {"description": about} | ({"examples": [examples[name]]} if name in examples else {})
        for name, about in PARAMETERS.items()
    }


def _messages() -> dict[str, Any]:
    found: dict[str, Any] = {
        name: {
            "summary": about,
            "contentType": "application/json",
            "payload": {"$ref": f"./{name}.schema.json"},
            "examples": [{"payload": json.loads(EXAMPLES[name])}],
        }
        for name, about in JSON_MESSAGES.items()
    }
    signature = {
        "type": "string",
        "pattern": "^[A-Za-z0-9+/]{86}==$",
        "description": "A user property: the Ed25519 signature of the payload, in base64; it is optional.",
    }
    found["manifest"] = {
        "summary": "The manifest of the bundle.",
        "contentType": "application/json",
        "headers": {"type": "object", "properties": {"signature": signature}},
    }
    for name, (kind, about) in BINARY_MESSAGES.items():
        found[name] = {"summary": about, "contentType": kind}
    asked = {"type": "string", "description": "Where the result shall be sent, too."}
    given = {
        "type": "string",
        "pattern": FRAME_ID,
        "description": "The sensor's own frame id; it is optional.",
    }
    for name in _FRAMES:
        found[name]["bindings"] = {
            "mqtt": {"responseTopic": asked, "correlationData": given, "bindingVersion": BINDING}
        }
    return found
