"""The folder of one user in a backend's input and output directories. Pure.

Flat and with an unguessable name: some nodes list every folder, or read all below one that is named, and nobody may
name another user's. What a backend tells is cleared of these names before anybody sees it.
"""

import re

MARK = "cluster-"
FOLDER = re.compile(r"cluster-[0-9a-f]{20}")


def user_folder(tag: str) -> str:
    """Its name; `tag` is 20 hexadecimal digits of a keyed hash."""
    return f"{MARK}{tag}"


def names_folder(text: str) -> bool:
    """Whether a text names a user's folder."""
    return FOLDER.search(text) is not None


def scrubbed(text: str) -> str:
    """A backend's text without such names, which its errors may list."""
    return FOLDER.sub("cluster", text)
