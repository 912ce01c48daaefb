"""What all benchmarks share: processes, their CPU and memory, tables, and what machine this is."""

import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from statistics import median

from mqtt_mdi.runtime.broker import mosquitto_program, running_broker
from mqtt_mdi.runtime.broker_url import BrokerURL

HERE = Path(__file__).parent
PACKAGES = ("mqtt-mdi", "paho-mqtt", "onnxruntime", "numpy", "cbor2", "pydantic")
_TICKS = os.sysconf("SC_CLK_TCK")

Row = dict[str, object]


@contextmanager
def broker() -> Iterator[BrokerURL]:
    """Mosquitto with the configuration that `mqtt-mdi broker` gives it."""
    with running_broker("mosquitto") as url:
        yield url


@contextmanager
def child(*command: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program for as long as the context lasts; its first word may be a script of this folder."""
    if command[0].endswith(".py"):
        command = (sys.executable, str(HERE / command[0]), *command[1:])
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            yield process
        finally:
            if process.poll() is not None:
                log.seek(0)
                print(f"{' '.join(command)} ended by itself:\n{log.read().decode()}", file=sys.stderr)
            process.terminate()
            process.wait()


def cpu_seconds(pid: int) -> float:
    """CPU time of a process so far, all threads, user and system (proc(5), /proc/pid/stat)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def resident_mib(pid: int, *, peak: bool = False) -> float:
    """Resident memory of a process in MiB, or its peak (proc(5), VmRSS and VmHWM in /proc/pid/status)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:" if peak else "VmRSS:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"process {pid} has ended")


def machine() -> Row:
    """The facts that figures depend on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    mosquitto = subprocess.run([mosquitto_program() or "", "-h"], capture_output=True, check=False)
    return {
        "cpu": models[0] if models else platform.machine(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "mosquitto": mosquitto.stdout.decode().partition("\n")[0].rpartition(" ")[2],
        **{package: version(package) for package in PACKAGES},
    }


def medians(rounds: Sequence[Row], key: str) -> list[Row]:
    """One row for each value of `key`, with the median of every number measured under it."""
    rows: list[Row] = []
    for value in dict.fromkeys(row[key] for row in rounds):
        same = [row for row in rounds if row[key] == value]
        rows.append({name: _middle([row[name] for row in same]) for name in same[0]})
    return rows


def _middle(values: Sequence[object]) -> object:
    numbers = [value for value in values if isinstance(value, float)]
    return median(numbers) if len(numbers) == len(values) else values[0]


def table(title: str, rows: Sequence[Row]) -> None:
    """Print rows as a Markdown table, which people can read, too."""
    cells = [list(rows[0]), *([_cell(value) for value in row.values()] for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    ruler = ["-" * width for width in widths]
    print(f"\n**{title}**\n")
    for line in (cells[0], ruler, *cells[1:]):
        print(f"| {' | '.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))} |")


def _cell(value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    whole = len(str(int(value)))
    return f"{value:.{max(0, 3 - whole)}f}"
