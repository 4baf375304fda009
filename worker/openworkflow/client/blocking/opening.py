"""Opens the blocking client."""

from typing import TypedDict

from openworkflow.backend.backend import BackendPostgres
from openworkflow.client.blocking.client import SyncOpenWorkflow
from openworkflow.client.blocking.line import Line
from openworkflow.codecs.payloads import Codecs, checked_codecs
from openworkflow.core.serialization import DEFAULT_PAYLOAD_LIMIT
from openworkflow.engine.request import check_options


class SyncOptions(TypedDict, total=False):
    """Options of OpenWorkflow.sync: those of BackendPostgres.connect and of OpenWorkflow."""

    namespace_id: str
    schema: str
    migrate: bool
    application_name: str
    listen_url: str | None
    payload_limit: int
    codec: Codecs | None


def opened(url: str, options: SyncOptions) -> SyncOpenWorkflow:
    """A client that has connected. Raises BackendError or ConfigurationError."""
    check_options("OpenWorkflow.sync", options, SyncOptions)
    limit = options.pop("payload_limit", DEFAULT_PAYLOAD_LIMIT)
    codecs = checked_codecs(options.pop("codec", None))

    async def connect() -> BackendPostgres:
        return await BackendPostgres.connect(url, **options)  # type: ignore[misc]

    return SyncOpenWorkflow(Line(connect, limit, codecs).open())
