"""A real Prometheus, for tests: it scrapes an embedded cluster, or has what was recorded of one."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.programs import program

PATIENCE = 30
_ATTEMPTS = 5
NOTHING_TO_SCRAPE = "global: {scrape_interval: 1h}\n"


class Prometheus:
    """A running Prometheus."""

    def __init__(self, url: str) -> None:
        self.url = url

    def ask(self, path: str, **query: Any) -> Any:
        """The data of an answer of its HTTP API."""
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=PATIENCE) as answer:  # noqa: S310 - our own server
            return json.load(answer)["data"]

    def query(self, promql: str, at: float | None = None) -> dict[tuple[str, ...], float]:
        """The values of an instant query, by the values of their labels."""
        data = self.ask("query", query=promql, **({} if at is None else {"time": at}))
        return {
            tuple(value for _, value in sorted(each["metric"].items())): float(each["value"][1])
            for each in data["result"]
        }

    def value(self, promql: str, at: float | None = None) -> float | None:
        """The only value of an instant query; None if there is none."""
        values = list(self.query(promql, at).values())
        assert len(values) <= 1, values
        return values[0] if values else None

    def wait_for(self, promql: str, wanted: float) -> None:
        """Wait until a query has this value."""
        end = time.monotonic() + PATIENCE
        while (found := self.value(promql)) != wanted:
            if time.monotonic() > end:
                pytest.fail(f"{promql} stays at {found}, not {wanted}")
            time.sleep(0.1)


@contextlib.contextmanager
def running(folder: Path, config: str, tsdb: Path | None = None) -> Iterator[Prometheus]:
    """A Prometheus with this configuration, and the data of this folder, if one is given."""
    file = folder / "prometheus.yaml"
    file.write_text(config, encoding="utf-8")
    for _ in range(_ATTEMPTS):
        started = _start(file, tsdb or folder / "tsdb")
        if started is not None:
            break
    else:
        pytest.fail("Prometheus does not start")
    process, url = started
    try:
        yield Prometheus(url)
    finally:
        process.terminate()
        process.wait(PATIENCE)


def _start(config: Path, tsdb: Path) -> tuple[subprocess.Popen[bytes], str] | None:
    """Start one and wait until it is ready; None if it ended (the port was taken meanwhile)."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [
            program("prometheus"), f"--config.file={config}", f"--storage.tsdb.path={tsdb}",
            f"--web.listen-address=127.0.0.1:{port}", "--storage.tsdb.retention.time=100y",
            "--log.level=error",
        ]
    )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    end = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < end:
        with contextlib.suppress(urllib.error.URLError, ConnectionError):
            urllib.request.urlopen(f"{url}/-/ready", timeout=1).close()  # noqa: S310
            return process, url
        time.sleep(0.05)
    process.kill()
    process.wait(PATIENCE)
    return None


def backfill(openmetrics: str, folder: Path) -> Path:
    """A folder of blocks with these samples."""
    file, tsdb = folder / "samples.txt", folder / "blocks"
    file.write_text(openmetrics, encoding="utf-8")
    done = subprocess.run(
        [program("promtool"), "tsdb", "create-blocks-from", "openmetrics", str(file), str(tsdb)],
        capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return tsdb
