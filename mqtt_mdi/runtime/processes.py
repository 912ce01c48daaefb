"""Parts of a pipeline as processes of this machine, for the demo and for experiments."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mqtt_mdi.errors import ConfigError
from mqtt_mdi.runtime.broker_url import BrokerURL

STOP_WITHIN_S = 5.0


@dataclass
class Part:
    """One process of the demo and where it writes what it has to say."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def check(self) -> None:
        """Raise ConfigError, with its last words, when the process has ended."""
        if self.process.poll() is not None:
            words = self.log.read_text(errors="replace").strip().splitlines()[-3:]
            raise ConfigError(f"{self.name} ended with code {self.process.returncode}: {' / '.join(words)}")


@contextmanager
def running(name: str, arguments: list[str], broker: BrokerURL, folder: Path) -> Iterator[Part]:
    """Run `mqtt-mdi` with some arguments for as long as the context lasts."""
    log = folder / f"{name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 -- ourselves
            [sys.executable, "-m", "mqtt_mdi", *arguments],
            # In the environment and not on the command line, where everybody could read the password.
            env={**os.environ, "MDI_BROKER": broker.with_password()},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # Ctrl-C is for us; we end the parts in order
        )
    try:
        yield Part(name, process, log)
    finally:
        process.terminate()
        try:
            process.wait(STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
