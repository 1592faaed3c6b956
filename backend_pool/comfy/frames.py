"""ComfyUI's websocket frames, without I/O: JSON text frames and the binary ones (server.py send_bytes, protocol §2).

Binary frames are big endian `uint32 event` plus payload: 1 preview, 3 text, 4 preview with metadata.
"""

import json
import struct
from dataclasses import dataclass
from typing import Any

from backend_pool.comfy.json_text import parse

Frame = str | bytes

PREVIEW_IMAGE = 1
TEXT = 3
PREVIEW_IMAGE_WITH_METADATA = 4
RELAYED = frozenset({PREVIEW_IMAGE, TEXT, PREVIEW_IMAGE_WITH_METADATA})
"""Clients throw on types they do not know, so no other is ever passed on (client demands B9)."""

JPEG, PNG = 1, 2


@dataclass(frozen=True)
class Message:
    """A parsed JSON frame."""

    type: str
    data: dict[str, Any]


def encode(kind: str, data: dict[str, Any]) -> str:
    """A JSON text frame."""
    return json.dumps({"type": kind, "data": data})


def decode(text: str) -> Message | None:
    """The message of a text frame; None for anything that is not one."""
    try:
        raw = parse(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(raw, dict) or not isinstance(raw.get("type"), str):
        return None
    data = raw.get("data")
    return Message(raw["type"], data if isinstance(data, dict) else {})


def binary_type(frame: bytes) -> int:
    """The event number of a binary frame, 0 when it is too short to have one."""
    return int(struct.unpack_from(">I", frame)[0]) if len(frame) >= 4 else 0


def preview_metadata(frame: bytes) -> tuple[dict[str, Any], bytes] | None:
    """Metadata and image bytes of a type 4 frame; None when it is malformed."""
    if len(frame) < 8 or binary_type(frame) != PREVIEW_IMAGE_WITH_METADATA:
        return None
    length = struct.unpack_from(">I", frame, 4)[0]
    try:
        metadata = parse(frame[8 : 8 + length])
    except (ValueError, RecursionError):
        return None
    return (metadata, frame[8 + length :]) if isinstance(metadata, dict) else None


def with_metadata(metadata: dict[str, Any], image: bytes) -> bytes:
    """A type 4 frame."""
    header = json.dumps(metadata).encode()
    return struct.pack(">II", PREVIEW_IMAGE_WITH_METADATA, len(header)) + header + image


def without_metadata(frame: bytes) -> bytes:
    """The type 1 frame of a type 4 one, for clients that did not announce supports_preview_metadata."""
    parsed = preview_metadata(frame)
    if parsed is None:
        return frame
    metadata, image = parsed
    kind = PNG if metadata.get("image_type") == "image/png" else JPEG
    return struct.pack(">II", PREVIEW_IMAGE, kind) + image
