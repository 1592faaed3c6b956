"""Names that are safe in paths, sockets and URLs: slugs of user names, random ids and secrets."""

import hashlib
import re
import secrets
import uuid

_UNSAFE = re.compile(r"[^a-z0-9]+")
READABLE_LENGTH = 24


def slug(name: str) -> str:
    """Directory name of a user: a readable part and a hash, so that `Ann` and `ann!` never share a directory."""
    readable = _UNSAFE.sub("-", name.lower()).strip("-")[:READABLE_LENGTH].strip("-") or "user"
    return f"{readable}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def new_id() -> str:
    """A canonical lower-case UUID, the form newer ComfyUI versions demand of a prompt_id."""
    return str(uuid.uuid4())


def new_secret() -> str:
    """43 URL-safe characters of 256 random bits."""
    return secrets.token_urlsafe(32)


def hash_of(secret: str) -> str:
    """What is stored of a `new_secret`. A fast hash is right: there is nothing to guess among 256 random bits."""
    return hashlib.sha256(secret.encode()).hexdigest()
