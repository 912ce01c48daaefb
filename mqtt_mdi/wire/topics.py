"""Every topic of the protocol, built and taken apart here alone."""

import re
from dataclasses import dataclass

from mqtt_mdi.core.types import IDENTIFIER
from mqtt_mdi.errors import ConfigError, ProtocolError

DROPPED = "$SYS/broker/publish/messages/dropped"
"""Mosquitto's own: messages that it dropped since its start, as a client's queue was full."""

PREFIX = "mdi/v1"
_IDENTIFIER = re.compile(IDENTIFIER)
_STAGE = re.compile("[1-9][0-9]?")
MOST_PARSED = 4096
"""Topics that need not be taken apart again."""


def identifier(value: str, what: str) -> str:
    """Return `value` when it may stand in a topic, else raise ConfigError."""
    if not _IDENTIFIER.fullmatch(value):
        raise ConfigError(f"{what} {value!r} may hold 1 to 64 letters, digits, '_' and '-' alone")
    return value


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic taken apart: `kind` as in the table of protocol.md, and its one or two names."""

    kind: str
    name: str = ""
    stage: int = 0


class Topics:
    """The topics of one pipeline."""

    def __init__(self, pipeline: str) -> None:
        self.pipeline = identifier(pipeline, "pipeline")
        self.root = f"{PREFIX}/{pipeline}"
        self.policy = f"{self.root}/policy"
        self.policy_set = f"{self.root}/policy/set"
        self.policy_result = f"{self.root}/policy/result"
        self.manifest = f"{self.root}/model/manifest"
        self.metrics = f"{self.root}/metrics"
        self.coordinator = f"{self.root}/coordinator/state"
        self._parsed: dict[str, Topic] = {}

    def client_id(self, *names: str) -> str:
        """What a process is called by the broker; no name holds a dot, so that no two are called alike."""
        return ".".join(("mdi", self.pipeline, *names))

    def frames(self, sensor: str = "+") -> str:
        """Where a sensor publishes."""
        return f"{self.root}/frames/{sensor}"

    def stage(self, stage: int, device: str) -> str:
        """Where a device takes tasks of a stage."""
        return f"{self.root}/stage/{stage}/{device}"

    def stage_any(self, stage: int) -> str:
        """Where any holder of a stage takes tasks; no device may be called `any`."""
        return f"{self.root}/stage/{stage}/any"

    def stage_shared(self, stage: int) -> str:
        """The shared subscription of the holders of a stage (MQTT 5, section 4.8.2)."""
        return f"$share/stage-{stage}/{self.stage_any(stage)}"

    def exits(self, source: str) -> str:
        """Where a source hears what became of its frames."""
        return f"{self.root}/exits/{source}"

    def results(self, sensor: str = "+") -> str:
        """Where a sensor's answers are published."""
        return f"{self.root}/results/{sensor}"

    def truth(self, sensor: str = "+") -> str:
        """Where the right labels of a sensor's frames are published."""
        return f"{self.root}/truth/{sensor}"

    def device(self, device: str = "+") -> str:
        """Where a device keeps its state."""
        return f"{self.root}/devices/{device}/state"

    def model_stage(self, stage: int) -> str:
        """Where the graph of a stage is kept."""
        return f"{self.root}/model/stage/{stage}"

    def deadletter(self, reporter: str = "+") -> str:
        """Where bytes that could not be understood are reported."""
        return f"{self.root}/deadletter/{reporter}"

    def parse(self, topic: str) -> Topic:
        """Take a topic of this pipeline apart; ProtocolError for any other."""
        found = self._parsed.get(topic)
        if found is None:
            found = self._parse(topic)
            if len(self._parsed) < MOST_PARSED:
                self._parsed[topic] = found
        return found

    def _parse(self, topic: str) -> Topic:
        if not topic.startswith(self.root + "/"):
            raise ProtocolError(f"topic {topic[:200]!r} is not of pipeline {self.pipeline}")
        match topic[len(self.root) + 1 :].split("/"):
            case ["stage", stage, name] if _STAGE.fullmatch(stage):
                found = Topic("stage", name, int(stage))
            case ["model", "stage", stage] if _STAGE.fullmatch(stage):
                found = Topic("model/stage", stage=int(stage))
            case ["devices", name, "state"]:
                found = Topic("devices", name)
            case ["frames" | "exits" | "results" | "truth" | "deadletter" as kind, name]:
                found = Topic(kind, name)
            case parts if "/".join(parts) in _SINGLE:
                found = Topic("/".join(parts))
            case _:
                raise ProtocolError(f"topic {topic[:200]!r} is none of the protocol's")
        if found.kind in _NAMED and not _IDENTIFIER.fullmatch(found.name):
            raise ProtocolError(
                f"name {found.name[:80]!r} in {topic[:200]!r} is no identifier ({IDENTIFIER})"
            )
        return found


_NAMED = {"stage", "devices", "frames", "exits", "results", "truth", "deadletter"}
_SINGLE = {"policy", "policy/set", "policy/result", "model/manifest", "metrics", "coordinator/state"}
