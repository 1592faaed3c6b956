"""ComfyUI's binary WebSocket frames: big endian `uint32 event` and a payload. Pure."""

import json
import struct
from typing import Any

PREVIEW_IMAGE = 1
PREVIEW_IMAGE_WITH_METADATA = 4
JPEG = 1


def preview(jpeg: bytes) -> bytes:
    """Type 1, for clients that did not negotiate metadata."""
    return struct.pack(">II", PREVIEW_IMAGE, JPEG) + jpeg


def preview_with_metadata(jpeg: bytes, metadata: dict[str, Any]) -> bytes:
    """Type 4; `image_type` is added to the metadata as ComfyUI does."""
    text = json.dumps(metadata | {"image_type": "image/jpeg"}).encode()
    return struct.pack(">II", PREVIEW_IMAGE_WITH_METADATA, len(text)) + text + jpeg
