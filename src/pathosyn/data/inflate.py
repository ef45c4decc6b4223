"""gzip, deflate and CRC-32, from isal where it is installed: several times as fast as Python's own. What is inflated, and the numbers, are the same bytes;
what is deflated is not, but inflates to the same."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

GzipFile: Any
InflateError: Any
crc32: Callable[..., int]
deflate: Callable[..., bytes]
"""A zlib stream, made quickly rather than small."""
try:
    from isal import igzip, isal_zlib

    GzipFile, InflateError, crc32 = igzip.IGzipFile, isal_zlib.error, isal_zlib.crc32
    deflate = partial(isal_zlib.compress, level=0)  # not what zlib calls 0: it does compress
except ImportError:  # no build for this machine
    import gzip
    import zlib

    GzipFile, InflateError, crc32 = gzip.GzipFile, zlib.error, zlib.crc32
    deflate = partial(zlib.compress, level=1)
