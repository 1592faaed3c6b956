"""A loop that fails at every turn says so once a minute, and counts the rest."""

import logging

import pytest

from proxy.base.logs import events, fields_of
from proxy.base.repeated import Repeated


def test_the_same_failure_is_one_line_and_another_a_second(caplog: pytest.LogCaptureFixture) -> None:
    often = Repeated(events("tests.repeated"), every_s=3600)
    with caplog.at_level(logging.WARNING, "tests.repeated"):
        for _ in range(50):
            often.error("not placed", job="1", error="away")
        often.error("not placed", job="2", error="full")
        often.warning("not looked at", exc_info=ValueError("x"))
    assert [(record.levelno, record.getMessage(), fields_of(record)) for record in caplog.records] == [
        (logging.ERROR, "not placed", {"job": "1", "error": "away"}),
        (logging.ERROR, "not placed", {"job": "2", "error": "full"}),
        (logging.WARNING, "not looked at", {}),
    ]


def test_what_was_left_out_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    often = Repeated(events("tests.repeated"), every_s=0.0)
    with caplog.at_level(logging.WARNING, "tests.repeated"):
        often.error("not placed", error="away")
        often.error("not placed", error="away")
    assert [fields_of(record) for record in caplog.records] == [{"error": "away"}] * 2
