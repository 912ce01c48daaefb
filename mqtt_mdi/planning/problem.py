"""What the fluid bound asks: devices, links, and how far frames go."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import isfinite

from mqtt_mdi.errors import ConfigError

Pair = tuple[str, str]

UNLIMITED = 1e12
"""Bytes a second that no link has: from here on a link is without limit."""


@dataclass(frozen=True)
class Device:
    """A worker: `seconds[k]` is what one task of stage k + 1 takes on it.

    `memory` in bytes, None without limit. `stages` are those it holds, None where the solver may place.
    There, `loaded` are those it has at present; a device that has some is spared others that bring little.
    """

    name: str
    seconds: tuple[float, ...]
    memory: float | None = None
    stages: frozenset[int] | None = None
    loaded: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Problem:
    """A system of K stages. Lists by stage have K entries, from stage 1.

    `reach[k]` is the share of frames that reach stage k + 1; `input_bytes[k]` what a task of it puts on a
    link; `stage_bytes[k]` the memory it takes. `links` are bytes a second from one device to another,
    without limit from `UNLIMITED` on, `broker` bytes a second of all links together, None without limit.

    With `source_runs_stage_1` frames do not leave their source before stage 1, as in MDI-Exit; else raw
    frames may be shipped. With `even_sources` all sources take in equally many frames, else as suits best.
    With `holders_run` a device that holds a stage runs all that it is sent of it, else it may pass some on.

    Raises ConfigError for values that cannot be.
    """

    devices: tuple[Device, ...]
    sources: tuple[str, ...]
    reach: tuple[float, ...]
    input_bytes: tuple[float, ...]
    stage_bytes: tuple[float, ...]
    links: Mapping[Pair, float]
    broker: float | None = None
    source_runs_stage_1: bool = False
    even_sources: bool = False
    holders_run: bool = False

    def __post_init__(self) -> None:
        names = [device.name for device in self.devices]
        _require(len(set(names)) == len(names), "devices", "two devices have one name")
        _require(bool(self.sources), "sources", "at least one device must be a source")
        named = {*self.sources, *(name for pair in self.links for name in pair)}
        strange = ", ".join(sorted(named - set(names)))
        _require(not strange, "sources and links", f"no device is called {strange}")
        _require(self.reach[:1] == (1.0,), "reach", "every frame reaches stage 1, so it begins with 1.0")
        falls = all(a >= b >= 0 for a, b in zip(self.reach, self.reach[1:], strict=False))
        _require(falls, "reach", f"shares must not rise from stage to stage: {self.reach}")
        self._check_list("input_bytes", self.input_bytes, least=0)
        self._check_list("stage_bytes", self.stage_bytes, least=0)
        for (a, b), rate in self.links.items():
            _require(rate > 0, f"links.{a}->{b}", f"{rate} bytes/s; leave out links that carry nothing")
        _require(self.broker is None or self.broker > 0, "broker", f"{self.broker} bytes/s is not above 0")
        for device in self.devices:
            self._check_device(device)

    @property
    def stage_count(self) -> int:
        """K."""
        return len(self.reach)

    def may_hold(self, device: Device, stage: int) -> bool:
        """Whether a device holds a stage, or could if nothing else were placed there."""
        if device.stages is not None:
            return stage in device.stages
        return device.memory is None or self.stage_bytes[stage - 1] <= device.memory

    def _check_list(self, field: str, values: tuple[float, ...], least: float) -> None:
        _require(len(values) == self.stage_count, field, f"{len(values)} values, {self.stage_count} stages")
        fine = all(isfinite(value) and value >= least for value in values)
        _require(fine, field, f"{values}: expected finite numbers of at least {least:g}")

    def _check_device(self, device: Device) -> None:
        field = f"devices.{device.name}"
        # A stage in less than a nanosecond is a unit mistaken, and would spoil the solver's arithmetic.
        self._check_list(f"{field}.seconds", device.seconds, least=1e-9)
        if device.stages is None:
            return
        strange = sorted(k for k in device.stages if not 1 <= k <= self.stage_count)
        _require(not strange, f"{field}.stages", f"{strange}, there are 1 to {self.stage_count}")
        needed = sum(self.stage_bytes[k - 1] for k in device.stages)
        if device.memory is not None and needed > device.memory:
            raise ConfigError(
                f"{field}: stages {sorted(device.stages)} need {needed:.0f} bytes, its memory is "
                f"{device.memory:.0f}: {needed - device.memory:.0f} bytes short"
            )


def useful_holders(problem: Problem) -> list[set[str]]:
    """For each stage, the devices that may hold it and that its inputs can get to.

    Raises ConfigError when there is none: the stage fits nowhere, nobody holds it, or no path leads there.
    """
    found = []
    here = set(problem.sources)
    for stage in range(1, problem.stage_count + 1):
        ships = stage > 1 or not problem.source_runs_stage_1
        near = reached(here, problem.links) if ships else here
        holders = {device.name for device in problem.devices if problem.may_hold(device, stage)}
        if not holders:
            raise ConfigError(_fits_nowhere(problem, stage))
        if not near & holders:
            way = "a path" if ships else "a frame, which stays where it came in until stage 1 is done,"
            raise ConfigError(
                f"disconnected: {way} would have to lead from {_list(here)} to a device for stage {stage}, "
                f"which is possible on {_list(holders)} only"
            )
        here = near & holders
        found.append(here)
    return found


def reached(start: Iterable[str], links: Iterable[Pair]) -> set[str]:
    """Every device that a path of links leads to from those in `start`, which are among them."""
    following: dict[str, list[str]] = {}
    for a, b in links:
        following.setdefault(a, []).append(b)
    seen, waiting = set(start), list(start)
    while waiting:
        fresh = set(following.get(waiting.pop(), ())) - seen
        seen |= fresh
        waiting.extend(fresh)
    return seen


def _fits_nowhere(problem: Problem, stage: int) -> str:
    free = [device for device in problem.devices if device.stages is None]
    if not free:
        return f"nobody holds stage {stage}, and no device is free to take it"
    roomiest = max(free, key=lambda device: device.memory or 0.0)
    needed, memory = problem.stage_bytes[stage - 1], roomiest.memory or 0.0
    return (
        f"stage {stage} needs {needed:.0f} bytes and fits on no device: {roomiest.name} has the most memory, "
        f"{memory:.0f} bytes, and is {needed - memory:.0f} short"
    )


def _list(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


def _require(holds: bool, field: str, message: str) -> None:  # noqa: FBT001 -- reads like assert
    if not holds:
        raise ConfigError(f"{field}: {message}")
