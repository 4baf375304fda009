"""Codecs of stored values: encryption, compression, and large values kept elsewhere.

    codec = [Compression(), Encryption.from_text(keys), Offload(DirectoryStore("/srv/values"))]
    ow = OpenWorkflow(backend, codec=codec)

See docs/codecs.md.
"""

from openworkflow.codecs.compression import Compression
from openworkflow.codecs.encryption import Encryption
from openworkflow.codecs.offload import DirectoryStore, ObjectStore, Offload
from openworkflow.codecs.protocol import Encoded, PayloadCodec, Place

__all__ = [
    "Compression",
    "DirectoryStore",
    "Encoded",
    "Encryption",
    "ObjectStore",
    "Offload",
    "PayloadCodec",
    "Place",
]
