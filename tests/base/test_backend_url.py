"""Addresses of backends as people may see them."""

import pytest

from proxy.base.backend_url import shown_url


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://10.0.0.5:8188", "http://10.0.0.5:8188"),
        ("http://engine:s3cret@127.0.0.1:8188", "http://127.0.0.1:8188"),
        ("https://token@gpu.example/base", "https://gpu.example/base"),
        ("http://u:p@[::1]:8188", "http://[::1]:8188"),
    ],
)
def test_no_password_is_shown(url: str, shown: str) -> None:
    assert shown_url(url) == shown
