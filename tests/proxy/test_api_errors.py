"""Errors as they go out: what a caller sent and gets quoted must not become an error of the server."""

import json

import pytest

from proxy.api.errors import error_response, unexpected
from proxy.base.errors import BadInput, DatabaseUnavailable
from proxy.base.logs import fields_of


def test_an_error_quotes_what_has_no_bytes() -> None:
    """JSON may hold half of a surrogate pair; UTF-8 may not."""
    answer = error_response({"type": "http", "path": "/prompt"}, BadInput("knows no x\ud800é", "\udfff"))
    assert answer.status_code == 400
    error = json.loads(bytes(answer.body))["error"]
    assert (error["message"], error["details"]) == ("knows no x?é", "?")


def test_no_token_in_the_log_where_nobody_could_be_asked_whose_it_is(caplog: pytest.LogCaptureFixture) -> None:
    """The path is cleaned by who looks the token up, and that one failed."""
    scope = {"type": "http", "path": "/t/cct_abc/prompt", "raw_path": b"/t/cct_abc/prompt", "query_string": b""}
    scope |= {"headers": []}
    answer = error_response(scope, DatabaseUnavailable("The database did not answer.", "at db.example"))
    unexpected(scope, ValueError("a defect"))
    assert answer.headers["retry-after"] == "5"
    assert b"db.example" not in bytes(answer.body)
    assert "cct_abc" not in str([fields_of(record) for record in caplog.records])
    assert {fields_of(record)["path"] for record in caplog.records} == {"/prompt"}
