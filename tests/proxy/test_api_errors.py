"""Errors as they go out: what a caller sent and gets quoted must not become an error of the server."""

import json

from proxy.api.errors import error_response
from proxy.base.errors import BadInput


def test_an_error_quotes_what_has_no_bytes() -> None:
    """JSON may hold half of a surrogate pair; UTF-8 may not."""
    answer = error_response({"type": "http", "path": "/prompt"}, BadInput("knows no x\ud800é", "\udfff"))
    assert answer.status_code == 400
    error = json.loads(bytes(answer.body))["error"]
    assert (error["message"], error["details"]) == ("knows no x?é", "?")
