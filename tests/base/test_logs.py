"""Logs: fields in both styles, secrets masked, libraries kept quiet."""

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from proxy.base import logs

NOISY = ("uvicorn.error", "httpx", "aiohttp.access")


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Pytest's own handlers and levels come back."""
    root = logging.getLogger()
    before = root.handlers[:], root.level, {name: logging.getLogger(name).level for name in NOISY}
    yield
    root.handlers[:], root.level = before[0], before[1]
    for name, level in before[2].items():
        logging.getLogger(name).setLevel(level)


def test_text_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "text")
    logs.events("proxy.test").info("job placed", job="j1", backend="b")
    line = capsys.readouterr().err
    assert line.endswith("INFO    proxy.test: job placed  job=j1 backend=b\n")


def test_json_for_machines(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "json")
    log = logs.events("proxy.test")
    log.warning("bad file", name="Ann's picture", size=3)
    try:
        raise ValueError("oops")
    except ValueError as error:
        log.error("it broke", exc_info=error)
    first, second = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert (first["level"], first["logger"], first["message"]) == ("warning", "proxy.test", "bad file")
    assert (first["name"], first["size"]) == ("Ann's picture", 3)
    assert "ValueError: oops" in second["exception"]


@pytest.mark.parametrize("style", ["text", "json"])
@pytest.mark.parametrize("field", ["password", "admin_password", "token", "X_Api_Token", "cookie", "Authorization"])
def test_secrets_are_masked(capsys: pytest.CaptureFixture[str], style: str, field: str) -> None:
    logs.configure("debug", "json" if style == "json" else "text")
    fields: dict[str, Any] = {field: "s3cr3t"}
    logs.events("proxy.test").error("something", **fields)
    line = capsys.readouterr().err
    assert "s3cr3t" not in line
    assert "***" in line


def test_levels_hold_and_libraries_are_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "text")
    logs.events("proxy.test").debug("too much")
    for name in NOISY:
        logging.getLogger(name).info("GET /?token=s3cr3t")
    assert capsys.readouterr().err == ""
