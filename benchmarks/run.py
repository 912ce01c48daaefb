"""Measure what the service costs; print tables, keep the figures with the facts of the machine.

python benchmarks/run.py                  all of it, half an hour
python benchmarks/run.py hop memory       some of it
python benchmarks/run.py --rounds 2       sooner, and less sure

engines    a stage in torch, TorchScript, ONNX Runtime and int8; stages one by one and in one graph
rivals     frames answered by one process, by torch's pipelining over gloo, by us; what the wire can carry
hop        CPU for handing one task on, beside a raw relay
pipeline   three devices and one; frames between devices at QoS 0 and 1
chain      two, three and five emulated boards in a row, beside what the slowest could do
memory     resident memory of devices with one stage
start      from the start of a device to its first answer
page       the page in Chromium beside an empty one, with 200 devices and 1,000 results a second
coordinator  results a second from a broker into SQLite, beside paho and sqlite3 alone
watched    the page open and metrics scraped, beside a coordinator that nobody looks at
security   TLS, the spool and signatures, with and without
simulator, worlds, planner     speed of the simulator, how true it is, and how long plans take
"""

import argparse
import json
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import chain
import coordinator
import engines
import hop
import measure
import memory
import page
import pipeline
import planner
import rivals
import security
import simulator
import start
import worlds

RESULTS = measure.HERE / "results"

MEASURES: dict[str, tuple[str, Callable[[int], list[measure.Row]]]] = {
    "engines": ("One frame on one thread, ms", engines.engines),
    "rivals": ("Answering frames on one machine", rivals.rivals),
    "hop": ("CPU for each task-hop, 16 KiB activations", hop.hop),
    "memory": ("Resident memory after 100 frames, one stage a device", lambda _rounds: memory.memory()),
    "start": ("From the start of a device's process to its first answer", start.start),
    "simulator": ("Simulating many workers, one core", simulator.simulator),
    "planner": ("Making a plan, one core", planner.planner),
    "worlds": ("The simulator's rates against those over Mosquitto, emulated boards", worlds.worlds),
    "page": ("The page in Chromium beside an empty one, two cores for everything", page.page),
    "security": ("TLS, the spool and signatures, each with and without", security.security),
    "coordinator": ("Results taken into SQLite by one coordinator", coordinator.intake),
    "watched": ("What the page, metrics and discovery cost the coordinator", coordinator.watched),
    "chain": ("Emulated boards in a row, one stage each", chain.chain),
    "pipeline": ("Three devices and one with the whole network", pipeline.pipelines),
}


def measured(name: str, rounds: int) -> list[measure.Row]:
    """The rows of a measure; in a process of its own none feels what another left in memory."""
    return MEASURES[name][1](rounds)


def main() -> None:
    """Run the measures asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("measures", nargs="*", metavar="MEASURE", help=f"of {', '.join(MEASURES)}")
    parser.add_argument(
        "--rounds", type=int, default=5, help="how often rivals take turns; medians are shown"
    )
    options = parser.parse_args()
    if unknown := set(options.measures) - set(MEASURES):
        parser.error(f"no measure {', '.join(sorted(unknown))}; there are {', '.join(MEASURES)}")
    facts = measure.machine()
    print(", ".join(f"{name} {value}" for name, value in facts.items()))
    tables: dict[str, list[measure.Row]] = {}
    for name in options.measures or MEASURES:
        with ProcessPoolExecutor(1, get_context("spawn")) as alone:
            tables[name] = alone.submit(measured, name, options.rounds).result()
        measure.table(MEASURES[name][0], tables[name])
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{time.strftime('%Y%m%d-%H%M%S')}.json"
    path.write_text(
        json.dumps({"machine": facts, "rounds": options.rounds, "tables": tables}, indent=1) + "\n"
    )
    print(f"\nwritten to {path}")


if __name__ == "__main__":
    main()
