"""The one spelling of a backend's address, for the settings and for the registry, and the one people may see."""

from urllib.parse import urlsplit, urlunsplit

from proxy.base.errors import BadInput

FIRST_VISIBLE = "!"
DELETE = "\x7f"


def clean_url(url: str) -> str:
    """`http://host:port/base` without a trailing slash; raises BadInput for anything else."""
    text = url.strip()
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        usable = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:  # such as a port that is no number
        parts, usable = urlsplit(""), False
    # urlsplit takes blanks for a part of the host, and drops line breaks without a word.
    plain = all(FIRST_VISIBLE <= character != DELETE and not character.isspace() for character in text)
    if not usable or not plain or parts.query or parts.fragment:
        raise BadInput(f"{url!r} is not the URL of a ComfyUI. Give one such as http://10.0.0.5:8188.")
    return urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/"), "", ""))


def full(url: str) -> str:
    """The address as it is; raises BadInput for a bare word: in a list of addresses that is rather a slip than a host,
    and nobody sees it made one."""
    host = url.strip().partition("/")[0]
    if host and host.lower() != "localhost" and not any(sign in host for sign in ".:"):
        raise BadInput(f"{url!r} is not the URL of a ComfyUI. If a host has that name, write http://{host}:8188.")
    return url


def shown_url(url: str) -> str:
    """The address without its user name and password: lists and reports are pasted into public places."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
