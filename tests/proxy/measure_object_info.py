"""What a page load pays for object_info: size and time, as it is, compressed and unchanged. Run by hand.

`python -m tests.proxy.measure_object_info NAME=URL ...`, where a URL is a ComfyUI's or ours with a token in its path
(`http://127.0.0.1:8188/t/TOKEN`). Interleaved, so that a busy machine slows all of them.
"""

import gzip
import statistics
import sys
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx

ROUNDS = 25
VARIANTS: dict[str, dict[str, str]] = {
    "as it is": {"Accept-Encoding": "identity"},
    "gzip": {"Accept-Encoding": "gzip"},
    "unchanged": {"Accept-Encoding": "gzip"},
}


def fetch(client: httpx.Client, url: str, headers: dict[str, str]) -> tuple[float, int, httpx.Response]:
    """(seconds, bytes on the wire, answer); the body is not unpacked."""
    started = time.perf_counter()
    with client.stream("GET", f"{url}/object_info", headers=headers) as answer:
        size = sum(len(part) for part in answer.iter_raw())
    return time.perf_counter() - started, size, answer


def measured(servers: dict[str, str]) -> Iterator[str]:
    """Lines of a table."""
    times: dict[tuple[str, str], list[float]] = {}
    facts: dict[tuple[str, str], tuple[int, int]] = {}
    with httpx.Client(trust_env=False, timeout=60) as client:
        for number in range(ROUNDS + 1):
            for name, url in servers.items():
                etag = ""
                for variant, headers in VARIANTS.items():
                    given = headers | ({"If-None-Match": etag} if variant == "unchanged" and etag else {})
                    taken, size, answer = fetch(client, url, given)
                    etag = answer.headers.get("etag", etag)
                    if number:  # the first one warms up
                        times.setdefault((name, variant), []).append(taken)
                    facts[name, variant] = (size, answer.status_code)
    for (name, variant), taken_s in times.items():
        size, status = facts[name, variant]
        middle, worst = statistics.median(taken_s) * 1000, max(taken_s) * 1000
        yield f"| {name} | {variant} | {status} | {size:,} | {middle:.1f} | {worst:.1f} |"


def main() -> None:
    servers = dict(argument.split("=", 1) for argument in sys.argv[1:])
    assert servers and all(urlsplit(url).scheme for url in servers.values()), __doc__
    print("| server | asked for | status | bytes | ms (median) | ms (worst) |\n|---|---|---|---|---|---|")
    for line in measured(servers):
        print(line)
    plain = VARIANTS["as it is"]
    raw = httpx.get(f"{next(iter(servers.values()))}/object_info", headers=plain, trust_env=False, timeout=60).content
    started = time.perf_counter()
    packed = gzip.compress(raw, 6)
    taken_ms = (time.perf_counter() - started) * 1000
    print(f"\nCompressing {len(raw):,} bytes at once: {len(packed):,} bytes, {taken_ms:.0f} ms")


if __name__ == "__main__":
    main()
