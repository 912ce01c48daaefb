"""The terminals of somebody who follows a page: a folder like a clone, and real processes.

Pages say port 1883 and hosts like `gateway`. Here every port is another one that is free, the same for the
whole page, and every broker's host is this machine: in the text of the commands, by MDI_BROKER and MDI_PORT
for commands of ours that name none, and by small programs on PATH for Mosquitto's clients.
"""

import io
import os
import random
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from live import environment, until
from PIL import Image
from steps import ROOT, Step

from mqtt_mdi.bundle.manifest import SHIPPED_BUNDLE
from mqtt_mdi.bundle.sample import read_sample

PATIENCE_S = 120.0
END_S = 20.0
FRAMES = 100
"""What commands send that do not say how many."""

WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
PATH = os.environ["PATH"] + ":/usr/sbin"
"""Debian has mosquitto where only root looks."""
SHELL = ["bash", "-e", "-o", "pipefail", "-c"]
NOT_OURS = {".git", ".venv", "build", "dist", "runs", "secrets"}
PORT = re.compile(r"(?:(?<=[\w\]]:)|(?<=\s:)|(?<=--port )|(?<=-p )|(?<=listener ))([1-9]\d{3,4})\b")
BROKER = re.compile(r"(?P<scheme>mqtts?)://(?P<user>[^\s/@]+@)?(?P<host>[A-Za-z0-9][\w.-]*)(?P<port>:\d+)?")

ADVICE = """
If the block holds no commands, fence it with its language (```text, ```json). If it stays up, put above it
<!-- stays up: WHAT IT SAYS ONCE IT IS READY -->; if it cannot be run in a test, <!-- not run: WHY -->.
docs/README.md, "Writing here", has the rules."""


@dataclass
class Terminal:
    """A command that runs or ran."""

    step: Step
    process: subprocess.Popen[bytes]
    log: Path
    read: int = 0
    """What of its words was waited for already."""

    def said(self) -> str:
        return self.log.read_text(errors="replace")


@dataclass
class Reader:
    """Somebody who does what a page says, in one folder."""

    folder: Path
    ports: dict[str, int] = field(default_factory=dict)
    open: list[Terminal] = field(default_factory=list)
    count: int = 0

    def __post_init__(self) -> None:
        checkout(self.folder)

    def do(self, step: Step) -> None:
        """Do one step; AssertionError, with all that was said, when it fails."""
        if step.kind == "wait for":
            self._wait_for(step)
        elif step.kind == "ended":
            self.end(step.text)
        elif step.kind == "stays up":
            self._stay_up(step)
        elif step.kind == "run":
            self._run(step)

    def end(self, named: str = "") -> None:
        """End what stays up and has `named` in its commands, as Ctrl-C does, and leave nothing of it."""
        ending = [one for one in self.open if named in one.step.commands]
        died = [one for one in ending if one.process.poll() not in (None, 0)]
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            for one in ending:
                if one.process.poll() is None:
                    os.killpg(one.process.pid, number)
            for one in ending:
                with suppress(subprocess.TimeoutExpired):
                    one.process.wait(END_S)
        words = self._story()
        self.open = [one for one in self.open if one not in ending]
        assert not died, f"{died[0].step.where} ended with code {died[0].process.returncode}\n{words}"

    def _start(self, step: Step) -> Terminal:
        self.count += 1
        log = self.folder.parent / f"{self.count}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*SHELL, self._localised(step.commands)],
                cwd=self.folder,
                env=self._environment(step),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return Terminal(step, process, log)

    def _run(self, step: Step) -> None:
        terminal = self._start(step)
        try:
            code = terminal.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.open.append(terminal)
            raise AssertionError(self._failed(step, f"not at its end after {PATIENCE_S:.0f} s")) from None
        assert code == 0, self._failed(step, f"exit code {code}\n{terminal.said()[-4000:]}")

    def _stay_up(self, step: Step) -> None:
        terminal = self._start(step)
        self.open.append(terminal)
        text = step.text or ("Subscribed (mid" if "mosquitto_sub" in step.commands else "")
        if text:
            self._hear(step, text, [terminal])

    def _wait_for(self, step: Step) -> None:
        self._hear(step, step.text, self.open)

    def _hear(self, step: Step, text: str, terminals: list[Terminal]) -> None:
        """Wait until one of them says `text`, in words that no earlier step has waited for."""

        def heard() -> str:
            ended = all(one.process.poll() is not None for one in terminals)
            for one in terminals:
                at = one.said().find(text, one.read)
                if at >= 0:
                    one.read = at + len(text)
                    return "heard"
            return "ended" if ended else ""

        found = until(heard, lambda: self._failed(step, f"did not hear {text!r}"), PATIENCE_S)
        assert found == "heard", self._failed(step, f"ended before {text!r} was said")

    def _failed(self, step: Step, what: str) -> str:
        return f"{step.where}: {what}\n\n{step.commands}\n{self._story()}\n{ADVICE}"

    def _story(self) -> str:
        return "\n".join(
            f"--- {one.step.where}: {one.step.commands.strip()}\n{one.said()[-2000:]}" for one in self.open
        )

    def _port(self, named: str) -> int:
        if named not in self.ports:
            self.ports[named] = free_port(lambda port: port not in self.ports.values())
        return self.ports[named]

    def _localised(self, commands: str) -> str:
        here = BROKER.sub(_here, commands)
        for named in sorted({found[1] for found in PORT.finditer(here)} | {"1883"}):
            here = re.sub(rf"\b{named}\b", str(self._port(named)), here)
        return here

    def _environment(self, step: Step) -> dict[str, str]:
        port = str(self._port("1883"))
        told = {name: value for name, value in environment().items() if not name.startswith("MAKE")}
        programs = [self.folder / ".venv/bin", Path(sys.executable).parent, PATH]
        return told | {
            "PATH": os.pathsep.join(map(str, programs)),
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            "MDI_BROKER": f"mqtt://127.0.0.1:{port}",
            "MDI_PORT": port,
            "MDI_FRAMES": str(FRAMES),
            "PAGE_PORT": port,
            "PAGE_SAYS": "-d" if step.kind == "stays up" else "",
        }


def _here(found: re.Match[str]) -> str:
    """A broker's address on this machine."""
    host = "localhost" if found["host"] == "localhost" else "127.0.0.1"
    port = found["port"] or (":8883" if found["scheme"] == "mqtts" else ":1883")
    return f"{found['scheme']}://{found['user'] or ''}{host}{port}"


def free_port(wanted: Callable[[int], bool]) -> int:
    """A port nobody listens on; each process that runs tests has a range of its own.

    They lie below those that systems give to whoever connects: it is still free when a command listens.
    """
    first = 20_000 + 500 * (WORKER % 20)
    while True:
        port = random.SystemRandom().randrange(first, first + 500)
        with socket.socket() as probe:
            if wanted(port) and probe.connect_ex(("127.0.0.1", port)) != 0:
                return port


def checkout(folder: Path) -> None:
    """Fill a folder with links to what a clone has, a `.venv` with programs, and a picture."""
    folder.mkdir()
    for entry in ROOT.iterdir():
        if entry.name not in NOT_OURS and not entry.name.endswith(".egg-info"):
            (folder / entry.name).symlink_to(entry)
    programs = folder / ".venv/bin"
    programs.mkdir(parents=True)
    for name, text in _programs().items():
        (programs / name).write_text(f"#!/bin/bash\n{text}\n", "utf-8")
        (programs / name).chmod(0o755)
    (folder / "picture.jpg").write_bytes(_picture())


def _programs() -> dict[str, str]:
    python = shlex.quote(sys.executable)
    found = {
        "python": f'exec {python} "$@"',
        "python3": f'exec {python} "$@"',
        # the demo brings a broker of its own, on a port of its own
        "mqtt-mdi": 'case " $* " in *" demo "*) unset MDI_BROKER MDI_PORT ;; esac\n'
        f'exec {python} -m mqtt_mdi "$@"',
    }
    for name in ("mosquitto_pub", "mosquitto_sub", "mosquitto_rr"):
        if program := shutil.which(name, path=PATH):
            says = " $PAGE_SAYS" if name == "mosquitto_sub" else ""
            found[name] = (
                f'case " $* " in *" -p "* | *" -L "*) port= ;; *) port="-p $PAGE_PORT" ;; esac\n'
                f'exec stdbuf -oL {program} $port{says} "$@"'
            )
    if program := shutil.which("make"):
        found["make"] = f'exec {program} -o .venv/.ready-demo -o .venv/.ready-test "$@"'  # installed already
    return found


def _picture() -> bytes:
    """A picture of the sample as a camera would send it."""
    file = io.BytesIO()
    Image.fromarray(read_sample(SHIPPED_BUNDLE).pictures[0]).save(file, "JPEG")
    return file.getvalue()
