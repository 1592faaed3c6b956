"""A large document whose beginning is the same for everybody: compressed once, finished per answer. Pure.

Deflate allows it: after a full flush the stream goes on without looking back, so that what was compressed for all and
what is compressed for one make one ordinary gzip stream (RFC 1951, 1952).
"""

import hashlib
import zlib

LEVEL = 6
HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
"""Deflate, no name, no time, from no system in particular."""


class Beginning:
    """The common part. Making one compresses it, which takes a while; finishing costs what the end is long."""

    def __init__(self, content: bytes) -> None:
        packer = zlib.compressobj(LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
        self.content = content
        self._packed = HEADER + packer.compress(content) + packer.flush(zlib.Z_FULL_FLUSH)
        self._sum = zlib.crc32(content)
        self._digest = hashlib.sha256(content)

    def whole(self, end: bytes) -> bytes:
        """The document as it is."""
        return self.content + end

    def gzipped(self, end: bytes) -> bytes:
        """The document as one gzip stream."""
        packer = zlib.compressobj(LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
        size = (len(self.content) + len(end)) & 0xFFFFFFFF
        trailer = zlib.crc32(end, self._sum).to_bytes(4, "little") + size.to_bytes(4, "little")
        return b"".join((self._packed, packer.compress(end), packer.flush(), trailer))

    def version(self, end: bytes) -> str:
        """A text that changes with the document."""
        digest = self._digest.copy()
        digest.update(end)
        return digest.hexdigest()[:32]
