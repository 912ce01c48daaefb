"""A pipeline in Home Assistant: the retained messages of its MQTT discovery, one for each device there.

Fields have the names that Home Assistant's documentation of MQTT gives them, in full. It takes device
discovery from 2024.11 on. Templates use what Jinja has by itself and nothing of Home Assistant's own.
"""

import json
import re
from dataclasses import dataclass
from math import ceil, floor
from typing import Any, Literal

import mqtt_mdi
from mqtt_mdi.errors import ConfigError
from mqtt_mdi.wire.topics import Topics

PREFIX = "homeassistant"
BIRTH = "homeassistant/status"
"""Where Home Assistant says, as it comes, that it is there."""

Kind = Literal["pipeline", "device", "sensor"]
Component = dict[str, Any]

_PREFIX = re.compile(r"[^#+/\0]+(/[^#+/\0]+)*")
_NONE = "'None'"  # what Home Assistant takes for a value that is not known
_MEASURED = {"state_class": "measurement"}
_COUNTED = {"state_class": "total_increasing"}
_MILLISECONDS = {
    "device_class": "duration",
    "unit_of_measurement": "ms",
    "suggested_display_precision": 1,
    **_MEASURED,
}
_DIAGNOSTIC = {"entity_category": "diagnostic"}


@dataclass(frozen=True, slots=True)
class Seen:
    """What of a pipeline is to be announced.

    `devices` are names and roles; `limits` what each threshold may be set to, at least and at most;
    `strategies` what the policy may name.
    """

    devices: tuple[tuple[str, str], ...] = ()
    sensors: tuple[str, ...] = ()
    limits: tuple[tuple[int, int], ...] = ()
    strategies: tuple[str, ...] = ()


class Discovery:
    """The topics that Home Assistant finds a pipeline on."""

    def __init__(self, pipeline: str, prefix: str = PREFIX) -> None:
        if not _PREFIX.fullmatch(prefix) or len(prefix) > 200:  # noqa: PLR2004 -- with room for the rest
            raise ConfigError(f"discovery prefix {prefix!r} is no topic: expected one like {PREFIX}")
        self.topics = Topics(pipeline)
        self.root = f"{prefix}/device/mdi-{pipeline}"
        self.every = f"{self.root}/+/config"
        self.marker = f"{self.root}/announcer/config"
        self.pipeline = self.config("pipeline")

    def config(self, kind: Kind, name: str = "") -> str:
        """Where a device of Home Assistant's is described; no bytes at all remove it."""
        return f"{self.root}/{kind}-{name}/config" if name else f"{self.root}/{kind}/config"

    def sensor(self, topic: str) -> str | None:
        """The sensor that a topic of `config` describes."""
        found = re.fullmatch(rf"{re.escape(self.root)}/sensor-([A-Za-z0-9_-]{{1,64}})/config", topic)
        return found[1] if found else None

    def messages(self, seen: Seen) -> dict[str, bytes]:
        """What is to be retained, by topic; the pipeline first, which the others name."""
        if seen == Seen():
            return {}
        found = {
            self.pipeline: self._message(
                f"mqtt-mdi {self.topics.pipeline}", "pipeline", "", self._pipeline(seen)
            )
        }
        for name, role in seen.devices:
            components = self._device(name, role)
            found[self.config("device", name)] = self._message(name, "device", role, components)
        sources = [name for name, role in seen.devices if role == "source"]
        for name in seen.sensors:
            found[self.config("sensor", name)] = self._message(
                name, "sensor", "sensor", self._sensor(name, sources)
            )
        return found

    def _message(self, name: str, kind: Kind, model: str, components: dict[str, Component]) -> bytes:
        pipeline = f"mdi/{self.topics.pipeline}"
        identifier = pipeline if kind == "pipeline" else f"{pipeline}/{kind}/{name}"
        device = {
            "identifiers": [identifier],
            "name": name,
            "manufacturer": "mqtt-mdi",
            "model": model or kind,
        }
        if kind != "pipeline":
            device |= {"name": f"{self.topics.pipeline} {name}", "via_device": pipeline}
        message = {
            "device": device,
            "origin": {"name": "mqtt-mdi", "sw_version": mqtt_mdi.__version__},
            "components": {
                key: {**component, "unique_id": f"{identifier}/{key}"}
                for key, component in components.items()
            },
        }
        return json.dumps(message).encode()

    def _pipeline(self, seen: Seen) -> dict[str, Component]:
        metrics, policy = self.topics.metrics, self.topics.policy
        there = {"availability": [_available(self.topics.coordinator)]}
        accuracy = f"value_json.accuracy * 100 if 'accuracy' in value_json else {_NONE}"
        percent = {"unit_of_measurement": "%", "suggested_display_precision": 2, **_MEASURED}
        rate = {"unit_of_measurement": "frames/s", "suggested_display_precision": 1, **_MEASURED}
        frames = {"unit_of_measurement": "frames", **_COUNTED}
        values = {
            "accuracy": _sensor("Accuracy", metrics, accuracy, percent),
            "throughput": _sensor("Throughput", metrics, "value_json.throughput", rate),
            "latency": _sensor("Latency", metrics, _known("latency_p50_ms"), _MILLISECONDS),
            "latency_p95": _sensor(
                "Latency, 95th percentile", metrics, _known("latency_p95_ms"), _MILLISECONDS
            ),
            "answered": _sensor("Frames answered", metrics, "value_json.answered", frames),
            "failed": _sensor("Frames failed", metrics, "value_json.failed", frames),
            "devices_online": _sensor("Devices online", metrics, "value_json.devices_online", _MEASURED),
            "policy_version": _sensor("Policy version", policy, "value_json.version", _DIAGNOSTIC),
        }
        values |= {
            f"threshold_{number}": self._threshold(number, *limits)
            for number, limits in enumerate(seen.limits, 1)
        }
        if seen.strategies:
            values["strategy"] = {
                "platform": "select",
                "name": "Strategy",
                "options": list(seen.strategies),
                "state_topic": policy,
                "value_template": "{{ value_json.strategy | default('mdi-exit') }}",
                **self._command("{'strategy': value}"),
            }
        connection = {"coordinator": _connection("Coordinator", self.topics.coordinator)}
        return connection | {key: value | there for key, value in values.items()}

    def _threshold(self, number: int, least: int, most: int) -> Component:
        """A merge patch replaces a list as a whole, so the entity knows the others from its attributes."""
        others = "this.attributes.thresholds"
        patched = f"{others}[:{number - 1}] + [value] + {others}[{number}:]"
        return {
            "platform": "number",
            "name": f"Threshold of exit {number}",
            "min": least,
            "max": most,
            "step": 0.001,
            "mode": "box",
            "state_topic": self.topics.policy,
            "value_template": f"{{{{ value_json.thresholds[{number - 1}] }}}}",
            "json_attributes_topic": self.topics.policy,
            "json_attributes_template": "{{ {'thresholds': value_json.thresholds} | tojson }}",
            **self._command(f"{{'thresholds': {patched}}}"),
        }

    def _command(self, patch: str) -> Component:
        return {
            "command_topic": self.topics.policy_set,
            "command_template": f"{{{{ {patch} | tojson }}}}",
            "qos": 1,
            "entity_category": "config",
        }

    def _device(self, name: str, role: str) -> dict[str, Component]:
        topic = self.topics.device(name)
        count, unit, what = ("completed", "tasks", "Tasks done")
        if role == "source":
            count, unit, what = ("answered", "frames", "Frames answered")
        service = f"value_json.service_s * 1000 if value_json.service_s else {_NONE}"
        done = f"value_json.counters.{count} | default(0)"
        queued = {"unit_of_measurement": "tasks", **_MEASURED}
        values = {
            "input_queue": _sensor("Input queue", topic, "value_json.input_queue", queued),
            "output_queue": _sensor("Output queue", topic, "value_json.output_queue", queued),
            "done": _sensor(what, topic, done, {"unit_of_measurement": unit, **_COUNTED}),
            "service_time": _sensor("Service time", topic, service, _MILLISECONDS),
        }
        there = {"availability": [_available(topic)]}
        connection = {"connection": _connection("Connection", topic)}
        return connection | {key: value | there for key, value in values.items()}

    def _sensor(self, name: str, sources: list[str]) -> dict[str, Component]:
        topic = self.topics.results(name)
        label = "value_json.class_name | default(value_json.label)"
        # A state of Home Assistant's has at most 255 characters.
        answer = f"{label} | string | truncate(255, true, '', 0) if value_json.status == 'ok' else 'failed'"
        values = {
            "answer": _sensor("Last answer", topic, answer, {"json_attributes_topic": topic}),
            "score": _sensor(
                "Score", topic, _known("score"), {"suggested_display_precision": 3, **_MEASURED}
            ),
            "latency": _sensor("Latency", topic, "value_json.latency_ms", _MILLISECONDS),
        }
        if not sources:
            return values
        there = [_available(self.topics.device(source)) for source in sources]
        return {
            key: value | {"availability": there, "availability_mode": "any"} for key, value in values.items()
        }


def updates(before: bytes, after: bytes) -> list[bytes]:
    """What to publish in the place of an earlier message; entities that go have to be named once more."""
    kept = _components(after)
    gone = {key: part for key, part in _components(before).items() if key not in kept}
    if not gone:
        return [after]
    farewell = json.loads(after)
    farewell["components"] |= {key: {"platform": part["platform"]} for key, part in gone.items()}
    return [json.dumps(farewell).encode(), after]


def limits(thresholds: tuple[float, ...]) -> tuple[tuple[int, int], ...]:
    """Between what each threshold may be set: 0 and 1 suit probabilities, other scores go past them."""
    return tuple((min(0, floor(threshold)), max(1, ceil(threshold))) for threshold in thresholds)


def _components(message: bytes) -> dict[str, Component]:
    """The components of a message that may be anybody's."""
    try:
        parts = json.loads(message)["components"]
        return {key: part for key, part in parts.items() if isinstance(part["platform"], str)}
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return {}


def _sensor(name: str, topic: str, value: str, more: Component) -> Component:
    return {
        "platform": "sensor",
        "name": name,
        "state_topic": topic,
        "value_template": f"{{{{ {value} }}}}",
        **more,
    }


def _connection(name: str, topic: str) -> Component:
    return {
        "platform": "binary_sensor",
        "name": name,
        "device_class": "connectivity",
        "state_topic": topic,
        "value_template": _online("ON", "OFF"),
        **_DIAGNOSTIC,
    }


def _available(topic: str) -> Component:
    return {"topic": topic, "value_template": _online("online", "offline")}


def _online(yes: str, no: str) -> str:
    """For a state that was taken away, too: no JSON then."""
    return f"{{{{ '{yes}' if value_json is defined and value_json.online else '{no}' }}}}"


def _known(name: str) -> str:
    return f"value_json.{name} | default({_NONE})"
