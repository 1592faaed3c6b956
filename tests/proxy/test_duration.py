"""Lengths of time as people write them."""

import pytest

from proxy.base.errors import BadInput
from proxy.duration import seconds_of


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("10m", 600), ("2h", 7200), ("1d", 86_400), ("45", 45), (" 1.5 m ", 90), ("0", 0)],
)
def test_seconds(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "-1s", "1e3", "10 min", "1h30m", "400d", "٣m", "nan", "9" * 400])
def test_no_length_of_time(text: str) -> None:
    with pytest.raises(BadInput, match="10m"):
        seconds_of(text)
