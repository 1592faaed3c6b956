"""Labels of backends, groups and jobs: words such as `fast` and pairs such as `gpu=a100`. Pure."""

import re
from collections.abc import Iterable

from proxy.base.errors import BadInput

MOST = 32
WORD = re.compile(r"[0-9A-Za-z]([0-9A-Za-z._/-]{0,61}[0-9A-Za-z])?(=[0-9A-Za-z._/-]{1,63})?")


def cleaned(labels: Iterable[str]) -> list[str]:
    """The labels in order, each once; of two values of one key the later counts. Raises BadInput."""
    by_key: dict[str, str] = {}
    for label in labels:
        word = label.strip()
        if WORD.fullmatch(word) is None:
            raise BadInput(
                f"{label[:80]!r} is no label. A label is a word or KEY=VALUE of letters, digits and . _ - / between, "
                "such as fast or gpu=a100."
            )
        by_key[key_of(word)] = word
    if len(by_key) > MOST:
        raise BadInput(f"At most {MOST} labels can be given.")
    return sorted(by_key.values())


def changed(labels: Iterable[str], add: Iterable[str] = (), remove: Iterable[str] = ()) -> list[str]:
    """Labels after a change. `remove` takes whole labels, and keys with whatever value they have. Raises BadInput."""
    gone = set(remove)
    kept = [label for label in labels if not {label, key_of(label)} & gone]
    return cleaned([*kept, *add])


def key_of(label: str) -> str:
    """`gpu` of `gpu=a100`; a plain word is its own key."""
    return label.partition("=")[0]
