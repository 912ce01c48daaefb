"""Home Assistant as its documentation describes it: takes discovery messages and renders their templates."""

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from discovery_schema import SCHEMA, TOPIC
from jinja2 import StrictUndefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jsonschema import Draft202012Validator

VALIDATOR = Draft202012Validator(SCHEMA)
_JINJA = ImmutableSandboxedEnvironment(undefined=StrictUndefined)


def render(template: str, payload: bytes) -> str:
    """What a template makes of a message."""
    values: dict[str, Any] = {"value": payload.decode()}
    with suppress(ValueError):
        values["value_json"] = json.loads(payload)
    return _JINJA.from_string(template).render(values)


class Home:
    """The entities by unique id, from what is retained on discovery topics; `last` has messages by topic."""

    def __init__(self, configs: Mapping[str, bytes], last: Mapping[str, bytes]) -> None:
        self.last = last
        self.devices: dict[str, dict[str, Any]] = {}
        self.entities: dict[str, dict[str, Any]] = {}
        for topic, payload in configs.items():
            assert re.fullmatch(TOPIC, topic), topic
            config = json.loads(payload)
            VALIDATOR.validate(config)
            (identifier,) = config["device"]["identifiers"]
            assert identifier not in self.devices
            self.devices[identifier] = config["device"]
            for component in config["components"].values():
                if component.keys() == {"platform"}:
                    continue  # it goes
                assert component["unique_id"] not in self.entities
                self.entities[component["unique_id"]] = component

    def state(self, unique_id: str) -> str:
        """What the entity shows; "unavailable" as its availability has it."""
        entity = self.entities[unique_id]
        there = [
            render(one["value_template"], self.last[one["topic"]]) for one in entity.get("availability", [])
        ]
        assert set(there) <= {"online", "offline"}
        if there and not (any if entity.get("availability_mode") == "any" else all)(
            t == "online" for t in there
        ):
            return "unavailable"
        shown = render(entity["value_template"], self.last[entity["state_topic"]])
        assert len(shown) <= 255
        return "unknown" if shown == "None" else shown

    def number(self, unique_id: str) -> float:
        """The same where a number is shown."""
        return float(self.state(unique_id))

    def attributes(self, unique_id: str) -> dict[str, Any]:
        """What else the entity knows."""
        entity = self.entities[unique_id]
        payload = self.last[entity["json_attributes_topic"]]
        template = entity.get("json_attributes_template")
        found = json.loads(render(template, payload) if template else payload)
        assert isinstance(found, dict)
        return found

    def command(self, unique_id: str, value: object) -> tuple[str, bytes]:
        """The topic and message by which a person sets the entity."""
        entity = self.entities[unique_id]
        this = {"attributes": self.attributes(unique_id) if "json_attributes_topic" in entity else {}}
        text = _JINJA.from_string(entity["command_template"]).render(value=value, this=this)
        return entity["command_topic"], text.encode()
