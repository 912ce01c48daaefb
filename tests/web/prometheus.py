"""A real Prometheus for tests: started with the project's own files, asked over its API."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote
from urllib.request import urlopen

import pytest
import yaml
from live import until

PATIENCE_S = 60.0
"""On a busy machine a scrape may fail, and nothing is known until the next."""

PROMETHEUS = Path(__file__).parents[2] / "deploy" / "prometheus"


@dataclass(frozen=True)
class Prometheus:
    """A running one; `ask` raises when it refuses."""

    url: str

    def ask(self, path: str) -> Any:  # noqa: ANN401 -- JSON
        with urlopen(f"{self.url}/api/v1/{path}", timeout=30) as response:
            return json.load(response)["data"]

    def query(self, expression: str) -> list[Any]:
        """The samples of an expression now; HTTPError says that it is none."""
        samples: list[Any] = self.ask(f"query?query={quote(expression)}")["result"]
        return samples

    def wait_for(self, expression: str, value: float | None = None) -> None:
        """Wait until an expression has samples; with a value, until its first is that."""

        def holds() -> bool:
            samples = self.query(expression)
            return bool(samples) and value in (None, float(samples[0]["value"][1]))

        until(holds, lambda: f"{expression}: {self.query(expression)}, expected {value}", PATIENCE_S)


@contextmanager
def running_prometheus(folder: Path, target: str, token: str, ca: Path | None = None) -> Iterator[Prometheus]:
    """One that scrapes and judges often, with the rules and the configuration of deploy/ otherwise.

    With an authority to trust it is the configuration for a page with TLS.
    """
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("no prometheus on PATH: apt-get install prometheus")
    file = PROMETHEUS / ("prometheus.yml" if ca is None else "prometheus.secure.yml")
    config = yaml.safe_load(file.read_text())
    config["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(PROMETHEUS / file) for file in config["rule_files"]]
    [job] = config["scrape_configs"]
    job["authorization"]["credentials_file"] = "token"
    if ca is not None:
        job["tls_config"]["ca_file"] = str(ca)
    job["static_configs"] = [{"targets": [target]}]
    (folder / "token").write_text(token)
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    log = folder / "prometheus.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                program,
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'tsdb'}",
                "--web.listen-address=127.0.0.1:0",
                "--log.format=json",
            ],
            stdout=output,
            stderr=output,
        )
    try:
        listening = re.compile(r'"address":"(127\.0\.0\.1:[1-9][0-9]*)"')

        def address() -> str | None:
            assert process.poll() is None, log.read_text()
            found = listening.search(log.read_text())
            ready = "ready to receive web requests" in log.read_text()
            return found[1] if found and ready else None

        yield Prometheus(f"http://{until(address, log.read_text, PATIENCE_S)}")
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
