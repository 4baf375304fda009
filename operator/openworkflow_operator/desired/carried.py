"""The `worker` section that a build was made of, as its Deployment carries it. Pure.

All annotations of an object have 256 KiB together, and a section may have more; it is JSON, of
which the compressed text is a tenth.
"""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from typing import Any, Final

from openworkflow_operator.api.spec import Worker

#: A section that is longer is compressed; shorter ones can be read.
LONGEST_PLAIN: Final = 64 * 2**10
#: No resource has more: etcd takes 1.5 MiB of one.
_LONGEST: Final = 8 * 2**20
_COMPRESSED: Final = "zlib:"


def carry(worker: Worker) -> str:
    """The section as the text of an annotation."""
    text = json.dumps(worker.raw, sort_keys=True, separators=(",", ":"))
    if len(text) <= LONGEST_PLAIN:
        return text
    return _COMPRESSED + base64.b64encode(zlib.compress(text.encode(), 9)).decode()


def carried(annotation: str) -> Worker:
    """The section back. Raises ValueError, KeyError or TypeError if somebody broke it."""
    return Worker.parse(json.loads(_text(annotation)))


def _text(annotation: str) -> Any:
    if not annotation.startswith(_COMPRESSED):
        return annotation
    try:
        packed = base64.b64decode(annotation.removeprefix(_COMPRESSED), validate=True)
        unpacking = zlib.decompressobj()
        text = unpacking.decompress(packed, _LONGEST)  # a small text may stand for a huge one
    except (binascii.Error, zlib.error) as error:
        raise ValueError("the annotation cannot be decoded") from error
    if not unpacking.eof:
        raise ValueError("the annotation is too long or cut")
    return text
