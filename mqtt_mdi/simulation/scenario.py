"""Scenario files: what is simulated, as data."""

from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mqtt_mdi.core.types import Identifier, StageIndex
from mqtt_mdi.errors import ConfigError
from mqtt_mdi.planning.problem import reached

Share = Annotated[float, Field(ge=0, lt=1)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Link(_Part):
    """One direction of a connection through the broker."""

    latency_ms: float = Field(1.0, ge=0, description="Time a message of no size takes.")
    bandwidth_mbit: float = Field(100.0, gt=0, description="One message after another at this rate.")
    jitter_ms: float = Field(0.0, ge=0, description="Mean of an exponential delay on top.")
    loss: Share = Field(0.0, description="Share of messages that never arrive.")
    duplication: Share = Field(0.0, description="Share of messages that arrive twice.")


class DeviceSpec(_Part):
    """A device: its speed as multiply-adds a second, and what it holds."""

    id: Identifier
    macs_per_second: float = Field(1e9, gt=0)
    stages: tuple[StageIndex, ...] | Literal["all"] = "all"
    source: bool = Field(default=False, description="Whether sensors' frames come in here.")


class LinkSpec(_Part):
    """A link between two devices, the same both ways; what is not given is the default link's."""

    between: tuple[Identifier, Identifier]
    latency_ms: float | None = Field(None, ge=0)
    bandwidth_mbit: float | None = Field(None, gt=0)
    jitter_ms: float | None = Field(None, ge=0)
    loss: Share | None = None
    duplication: Share | None = None


class Arrivals(_Part):
    """When frames come: evenly, as a Poisson process, at given times, or as fast as they are taken."""

    kind: Literal["fixed", "poisson", "trace", "saturating"] = "poisson"
    rate: float | None = Field(None, gt=0, description="Frames a second, for fixed and poisson.")
    times_s: tuple[Annotated[float, Field(ge=0)], ...] = Field((), description="For trace, ascending.")

    @model_validator(mode="after")
    def _given_what_it_needs(self) -> Self:
        if self.kind in ("fixed", "poisson") and self.rate is None:
            raise ValueError(f"{self.kind} arrivals need a rate")
        if self.kind == "trace" and (not self.times_s or sorted(self.times_s) != list(self.times_s)):
            raise ValueError("trace arrivals need times_s in ascending order")
        return self


class Fault(_Part):
    """Something that happens to a device."""

    at_s: float = Field(ge=0)
    device: Identifier
    what: Literal["dies", "returns"]


class Scenario(_Part):
    """A world to simulate."""

    name: str = Field(min_length=1, max_length=200)
    seed: int = 1
    frames: int = Field(1000, ge=1, le=10_000_000)
    limit_s: float = Field(3600.0, gt=0, description="Virtual seconds after which it ends in any case.")
    arrivals: Arrivals
    policy: dict[str, Any] = Field(default_factory=dict, description="Merge patch on the bundle's policy.")
    devices: Annotated[tuple[DeviceSpec, ...], Field(min_length=1)]
    topology: Literal["mesh", "circular", "links"] = "mesh"
    default_link: Link = Link()
    links: tuple[LinkSpec, ...] = ()
    faults: tuple[Fault, ...] = ()

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        names = [device.id for device in self.devices]
        if len(set(names)) != len(names):
            raise ValueError("two devices have one id")
        if not any(device.source for device in self.devices):
            raise ValueError("no device is a source")
        named = [*(fault.device for fault in self.faults), *(n for link in self.links for n in link.between)]
        if strange := sorted(set(named) - set(names)):
            raise ValueError(f"no device is called {', '.join(strange)}")
        sources = {device.id for device in self.devices if device.source}
        if mortal := sorted(sources & {fault.device for fault in self.faults}):
            raise ValueError(f"faults: source {mortal[0]} cannot die, the frames it owns would die with it")
        if missing := set(names) - reached(names[:1], self.edges()):
            raise ValueError(f"the topology is disconnected: no path from {names[0]} to {sorted(missing)}")
        return self

    def edges(self) -> dict[tuple[str, str], Link]:
        """The link of every pair of neighbours, in both directions."""
        names = [device.id for device in self.devices]
        pairs: Iterable[tuple[str, str]] = ()
        if self.topology == "mesh":
            pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
        elif self.topology == "circular" and len(names) > 1:
            pairs = [*pairwise(names), (names[-1], names[0])]
        found = {pair: self.default_link for a, b in pairs for pair in ((a, b), (b, a))}
        for spec in self.links:
            given = spec.model_dump(exclude={"between"}, exclude_none=True)
            link = self.default_link.model_copy(update=given)
            a, b = spec.between
            found[a, b] = found[b, a] = link
        return found


def read_scenario(path: Path) -> Scenario:
    """Read a scenario from YAML; ConfigError names the field that is wrong."""
    try:
        document = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot read scenario {path}: {error}") from error
    try:
        return Scenario.model_validate(document)
    except ValidationError as error:
        faults = [
            f"{'.'.join(map(str, fault['loc'])) or 'scenario'}: {fault['msg']}"
            for fault in error.errors(include_url=False)[:5]
        ]
        raise ConfigError(f"scenario {path}: {'; '.join(faults)}") from error
