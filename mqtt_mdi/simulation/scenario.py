"""Scenario files: what is simulated, as data."""

from collections.abc import Iterable
from itertools import pairwise, permutations
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mqtt_mdi.core.types import Identifier, StageIndex
from mqtt_mdi.errors import ConfigError
from mqtt_mdi.planning.problem import reached
from mqtt_mdi.wire.documents import load_yaml

MAX_LINKS = 1_000_000

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
    """A device: its speed as multiply-adds a second, the bytes it has for stages, and what it holds."""

    id: Identifier
    macs_per_second: float = Field(1e9, gt=0)
    memory: int | None = Field(None, ge=0, description="Bytes for stages; without limit when left out.")
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
    until_s: float | None = Field(None, gt=0, description="No frames come after this.")
    rate: float | None = Field(None, gt=0, description="Frames a second, for fixed and poisson.")
    times_s: tuple[Annotated[float, Field(ge=0)], ...] = Field((), description="For trace, ascending.")

    @model_validator(mode="after")
    def _given_what_it_needs(self) -> Self:
        if self.kind in ("fixed", "poisson") and self.rate is None:
            raise ValueError(f"{self.kind} arrivals need a rate")
        if self.kind == "trace" and (not self.times_s or sorted(self.times_s) != list(self.times_s)):
            raise ValueError("trace arrivals need times_s in ascending order")
        return self


class LinkChange(LinkSpec):
    """A link that becomes another while frames are in flight; what is under way keeps its old pace."""

    at_s: float = Field(ge=0)


class Fault(_Part):
    """Something that happens to a device."""

    at_s: float = Field(ge=0)
    device: Identifier
    what: Literal["dies", "returns", "changes speed"]
    macs_per_second: float | None = Field(None, gt=0, description="For a change of speed.")

    @model_validator(mode="after")
    def _speed_is_given(self) -> Self:
        if (self.what == "changes speed") != (self.macs_per_second is not None):
            raise ValueError("macs_per_second belongs to a change of speed, and that needs it")
        return self


class Scenario(_Part):
    """A world to simulate."""

    name: str = Field(min_length=1, max_length=200)
    seed: int = 1
    frames: int = Field(1000, ge=1, le=10_000_000)
    frame_bytes: int | None = Field(
        None, ge=1, description="Size of a frame on its way; that of the model's input when left out."
    )
    limit_s: float = Field(3600.0, gt=0, description="Virtual seconds after which it ends in any case.")
    arrivals: Arrivals
    policy: dict[str, Any] = Field(default_factory=dict, description="Merge patch on the bundle's policy.")
    devices: Annotated[tuple[DeviceSpec, ...], Field(min_length=1)]
    topology: Literal["mesh", "circular", "groups", "links"] = Field(
        "mesh",
        description="`mesh`: all send to all; `circular`: each to the next alone; `groups`: meshes of "
        "`group` devices each, in order; `links`: only those listed, both ways.",
    )
    group: int = Field(5, ge=1, description="Devices of a group.")
    default_link: Link = Link()
    links: tuple[LinkSpec, ...] = ()
    link_changes: tuple[LinkChange, ...] = ()
    faults: tuple[Fault, ...] = ()
    load_s: float = Field(0.05, ge=0, description="Seconds a device takes to load stages.")
    solve_s: float = Field(0.1, ge=0, description="Seconds the coordinator takes to make a plan.")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        names = [device.id for device in self.devices]
        if len(set(names)) != len(names):
            raise ValueError("two devices have one id")
        if not any(device.source for device in self.devices):
            raise ValueError("no device is a source")
        each = {"mesh": len(names), "groups": self.group}.get(self.topology, 1)
        if len(names) * (min(each, len(names)) - 1) > MAX_LINKS:
            raise ValueError(f"{len(names)} devices in a {self.topology} have more than {MAX_LINKS} links")
        sources = {device.id for device in self.devices if device.source}
        self._check_faults(set(names), sources)
        self._check_links(set(names))
        if missing := sorted(set(names) - reached(sources, self.edges())):
            raise ValueError(f"the topology is disconnected: no path from a source to {', '.join(missing)}")
        return self

    def _check_faults(self, names: set[str], sources: set[str]) -> None:
        dead: set[str] = set()
        for fault in sorted(self.faults, key=lambda fault: fault.at_s):
            if fault.device not in names:
                raise ValueError(f"faults: no device is called {fault.device}")
            if fault.what == "dies" and fault.device in sources:
                raise ValueError(
                    f"faults: source {fault.device} cannot die, the frames it owns would die with it"
                )
            if fault.what != "changes speed" and (fault.device in dead) != (fault.what == "returns"):
                state = "dead" if fault.device in dead else "alive"
                raise ValueError(f"faults: {fault.device} {fault.what} at {fault.at_s:g} s, but is {state}")
            dead ^= {fault.device} if fault.what != "changes speed" else set()

    def _check_links(self, names: set[str]) -> None:
        linked = self.edges()
        for field, specs in (("links", self.links), ("link_changes", self.link_changes)):
            for spec in specs:
                if strange := sorted(set(spec.between) - names):
                    raise ValueError(f"{field}: no device is called {', '.join(strange)}")
                if not any(pair in linked for pair in self._ends(spec)):
                    raise ValueError(f"{field}: {' and '.join(spec.between)} are not linked")

    def edges(self) -> dict[tuple[str, str], Link]:
        """The link of every pair of which the first may send tasks to the second."""
        names = [device.id for device in self.devices]
        found = dict.fromkeys(self._pairs(names), self.default_link)
        for spec in self.links:
            for pair in self._ends(spec):
                if pair in found or self.topology == "links":
                    found[pair] = changed(self.default_link, spec)
        return found

    def policy_patch(self) -> dict[str, Any]:
        """The scenario's merge patch on the bundle's policy, with who may send to whom."""
        if self.topology == "mesh":
            return self.policy
        # Everybody is named: a device without links may send to nobody.
        allowed: dict[str, list[str]] = {spec.id: [] for spec in self.devices}
        for a, b in self.edges():
            allowed[a].append(b)
        return {"neighbours": allowed, **self.policy}

    def _pairs(self, names: list[str]) -> Iterable[tuple[str, str]]:
        match self.topology:
            case "mesh":
                return permutations(names, 2)
            case "circular":
                return pairwise([*names, names[0]]) if len(names) > 1 else ()
            case "groups":
                groups = (names[start : start + self.group] for start in range(0, len(names), self.group))
                return (pair for group in groups for pair in permutations(group, 2))
            case "links":
                return ()

    @staticmethod
    def _ends(spec: LinkSpec) -> tuple[tuple[str, str], tuple[str, str]]:
        a, b = spec.between
        return (a, b), (b, a)


def changed(link: Link, spec: LinkSpec) -> Link:
    """A link with what a specification gives of its own."""
    return link.model_copy(update=spec.model_dump(include=set(Link.model_fields), exclude_none=True))


def read_scenario(path: Path) -> Scenario:
    """Read a scenario from YAML; ConfigError names the field that is wrong."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read scenario {path}: {error}") from error
    return parse_scenario(data, f"scenario {path}")


def parse_scenario(data: bytes, where: str) -> Scenario:
    """Read a scenario from YAML bytes; `where` names their origin in the message of the ConfigError."""
    document = load_yaml(data, where)
    try:
        return Scenario.model_validate(document)
    except ValidationError as error:
        faults = [
            f"{'.'.join(map(str, fault['loc']))[:100] or 'scenario'}: {fault['msg']}"
            for fault in error.errors(include_url=False)[:5]
        ]
        raise ConfigError(f"{where}: {'; '.join(faults)}") from error
