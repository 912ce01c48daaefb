"""What Home Assistant takes on its discovery topics, as a JSON Schema: the fields it documents and no other.

Written from the documentation of its MQTT integration (device discovery) and of the platforms used here, and
compared once with what the integration itself, of version 2025.4, makes of our messages.
"""

from typing import Any

Schema = dict[str, Any]

_TEXT: Schema = {"type": "string", "minLength": 1}
_ANY: Schema = {"type": "string"}
_SWITCH: Schema = {"type": "boolean"}
_TOPIC: Schema = {"type": "string", "minLength": 1, "maxLength": 65535, "pattern": "^[^+#\\u0000]+$"}
_TEMPLATE: Schema = {"type": "string", "pattern": r"\{\{|\{%"}
_SECONDS: Schema = {"type": "integer", "minimum": 1}
_TIMES = ["d", "h", "min", "s", "ms", "µs"]


def _closed(properties: Schema, *required: str, **more: object) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
        **more,
    }


_AVAILABILITY: Schema = {
    "availability": {
        "type": "array",
        "minItems": 1,
        "items": _closed(
            {
                "topic": _TOPIC,
                "value_template": _TEMPLATE,
                "payload_available": _ANY,
                "payload_not_available": _ANY,
            },
            "topic",
        ),
    },
    "availability_mode": {"enum": ["all", "any", "latest"]},
    "availability_topic": _TOPIC,
    "availability_template": _TEMPLATE,
    "payload_available": _ANY,
    "payload_not_available": _ANY,
}
_COMMON: Schema = _AVAILABILITY | {
    "default_entity_id": _TEXT,
    "enabled_by_default": _SWITCH,
    "encoding": _ANY,
    "entity_picture": _TEXT,
    "icon": {"type": "string", "pattern": "^mdi:[a-z0-9-]+$"},
    "json_attributes_template": _TEMPLATE,
    "json_attributes_topic": _TOPIC,
    "name": {"type": ["string", "null"]},
    "qos": {"enum": [0, 1, 2]},
    "unique_id": _TEXT,
}
_READ: Schema = {
    "entity_category": {"const": "diagnostic"},
    "expire_after": _SECONDS,
    "force_update": _SWITCH,
    "state_topic": _TOPIC,
    "value_template": _TEMPLATE,
}
_WRITTEN: Schema = {
    "command_template": _TEMPLATE,
    "command_topic": _TOPIC,
    "entity_category": {"enum": ["config", "diagnostic"]},
    "optimistic": _SWITCH,
    "retain": _SWITCH,
    "state_topic": _TOPIC,
    "value_template": _TEMPLATE,
}


def _component(platform: str, properties: Schema, *required: str, **more: object) -> Schema:
    named = {"platform": {"const": platform}} | _COMMON | properties
    return _closed(named, "platform", "unique_id", *required, **more)


_SENSOR = _component(
    "sensor",
    _READ
    | {
        "device_class": {"enum": [None, "duration"]},
        "last_reset_value_template": _TEMPLATE,
        "options": {"type": "array", "items": _TEXT},
        "state_class": {"enum": ["measurement", "measurement_angle", "total", "total_increasing"]},
        "suggested_display_precision": {"type": "integer", "minimum": 0},
        "unit_of_measurement": _TEXT,
    },
    "state_topic",
    dependentSchemas={
        "device_class": {
            "properties": {"unit_of_measurement": {"enum": _TIMES}},
            "required": ["unit_of_measurement"],
        }
    },
)
_BINARY_SENSOR = _component(
    "binary_sensor",
    _READ
    | {
        "device_class": {"enum": [None, "connectivity", "problem", "running"]},
        "off_delay": _SECONDS,
        "payload_off": _ANY,
        "payload_on": _ANY,
    },
    "state_topic",
)
_NUMBER = _component(
    "number",
    _WRITTEN
    | {
        "max": {"type": "number"},
        "min": {"type": "number"},
        "mode": {"enum": ["auto", "box", "slider"]},
        "payload_reset": _ANY,
        "step": {"type": "number", "minimum": 0.001},
        "unit_of_measurement": _TEXT,
    },
    "command_topic",
)
_SELECT = _component(
    "select",
    _WRITTEN | {"options": {"type": "array", "minItems": 1, "uniqueItems": True, "items": _TEXT}},
    "command_topic",
    "options",
)
_GOING = _closed({"platform": {"enum": ["sensor", "binary_sensor", "number", "select"]}}, "platform")

SCHEMA: Schema = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    **_closed(
        _AVAILABILITY
        | {
            "device": _closed(
                {
                    "configuration_url": {"type": "string", "pattern": "^(https?|homeassistant)://"},
                    "connections": {"type": "array", "items": {"type": "array", "items": _TEXT}},
                    "hw_version": _TEXT,
                    "identifiers": {"type": "array", "minItems": 1, "items": _TEXT},
                    "manufacturer": _TEXT,
                    "model": _TEXT,
                    "model_id": _TEXT,
                    "name": _TEXT,
                    "serial_number": _TEXT,
                    "suggested_area": _TEXT,
                    "sw_version": _TEXT,
                    "via_device": _TEXT,
                },
                "identifiers",
            ),
            "origin": _closed({"name": _TEXT, "sw_version": _TEXT, "support_url": _TEXT}, "name"),
            "components": {
                "type": "object",
                "minProperties": 1,
                "additionalProperties": {"oneOf": [_SENSOR, _BINARY_SENSOR, _NUMBER, _SELECT, _GOING]},
            },
            "command_topic": _TOPIC,
            "encoding": _ANY,
            "qos": {"enum": [0, 1, 2]},
            "state_topic": _TOPIC,
        },
        "device",
        "origin",
        "components",
    ),
}
TOPIC = r"[^#+]+/device/([a-zA-Z0-9_-]+/)?[a-zA-Z0-9_-]+/config"
"""The topics that are looked at, under any prefix."""
