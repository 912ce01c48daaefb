"""One process for one target: `python -m fuzz.hunt TARGET INPUTS`; tells how it goes as lines of JSON."""

import hashlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

DECODERS = [
    "mqtt_mdi.wire",
    "mqtt_mdi.bundle",
    "mqtt_mdi.simulation.scenario",
    "mqtt_mdi.datasets.fashion_mnist",
]
DECODERS += ["PIL.JpegImagePlugin", "PIL.PngImagePlugin"]

try:
    import atheris
except ImportError:
    import fuzz.targets
else:
    with atheris.instrument_imports(include=DECODERS):
        import fuzz.targets

from fuzz.corpus import CORPUS, kept  # noqa: E402 -- after what is instrumented
from fuzz.judge import judge, peak_bytes  # noqa: E402 -- as above

LONGEST = 16384
LARGEST_KEPT = 2048
MOST_KEPT = 16
LINES = 50


@dataclass
class Found:
    """What a run of a target found: `kept` holds the smallest input for each thing said."""

    target: str
    goal: int
    inputs: int = 0
    began: float = field(default_factory=time.monotonic)
    seconds: float = 0.0
    slowest_s: float = 0.0
    grown: int = 0
    faults: dict[str, str] = field(default_factory=dict)

    def line(self) -> str:
        self.seconds = time.monotonic() - self.began
        return json.dumps(asdict(self))


def hunt(name: str, goal: int, *, grow: bool) -> None:
    """Judge `goal` inputs; whatever is found goes to the corpus."""
    target = fuzz.targets.TARGETS[name]
    seeds = [*target.seeds, *kept(name).values()]
    known = {judge(target, seed).said for seed in seeds}
    said: dict[str, bytes] = {}
    found, before = Found(name, goal), peak_bytes()

    def one(data: bytes) -> None:
        verdict = judge(target, data)
        found.inputs += 1
        found.slowest_s = max(found.slowest_s, verdict.seconds)
        if verdict.fault is not None:
            kind = verdict.said if verdict.said in verdict.fault else verdict.fault.split(":")[0]
            if kind not in found.faults:
                found.faults[kind] = str(keep(name, "fault-", data))
        elif verdict.said not in known and len(data) < len(said.get(verdict.said, bytes(LARGEST_KEPT + 1))):
            said[verdict.said] = data
        if found.inputs % max(1, goal // LINES) == 0 or found.inputs == goal:
            found.grown = peak_bytes() - before
            sys.stdout.write(found.line() + "\n")
            sys.stdout.flush()
        if found.inputs == goal:
            fresh = sorted(said.values(), key=len) if grow else []
            for short in fresh[: max(0, MOST_KEPT - len(kept(name)))]:
                keep(name, "", short)
            os._exit(0)  # libFuzzer knows no other end

    (CORPUS / name).mkdir(exist_ok=True)
    drive(one, seeds, name, goal)


def drive(one: Callable[[bytes], None], seeds: list[bytes], name: str, goal: int) -> None:
    """Call `one` with what atheris makes of the seeds, or hypothesis where there is no atheris."""
    if "atheris" not in sys.modules:
        from hypothesis import HealthCheck, Phase, given, settings  # noqa: PLC0415 -- one or the other

        from fuzz.mutations import hostile  # noqa: PLC0415

        settings(
            max_examples=goal,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )(given(hostile(seeds))(one))()
        return
    folder = Path(tempfile.mkdtemp(prefix="fuzz-seeds-"))
    for number, seed in enumerate(seeds):
        (folder / str(number)).write_bytes(seed)
    options = {
        "max_len": LONGEST,
        "timeout": 30,
        "rss_limit_mb": 4096,
        "len_control": 0,
        "seed": 1,
        "verbosity": 0,
        "artifact_prefix": f"{CORPUS / name}/",
    }
    atheris.Setup([sys.argv[0], *(f"-{key}={value}" for key, value in options.items()), str(folder)], one)
    atheris.Fuzz()


def keep(name: str, prefix: str, data: bytes) -> Path:
    """Write an input to the corpus."""
    path = CORPUS / name / f"{prefix}{hashlib.sha256(data).hexdigest()[:12]}"
    path.write_bytes(data)
    return path


if __name__ == "__main__":
    hunt(sys.argv[1], int(sys.argv[2]), grow="--grow" in sys.argv)
