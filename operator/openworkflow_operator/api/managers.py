"""Who last set a part of a resource, as the API server recorded it. Pure.

That is the name of a program (`kubectl`, `argocd-controller`), where it left one: users are in the
audit log of the cluster, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from openworkflow_operator.api.names import PAUSED_ANNOTATION

_PAUSED: Final = ("metadata", "annotations", PAUSED_ANNOTATION)
_LONGEST_NAME: Final = 128


def managers_of(metadata: Mapping[str, Any]) -> dict[str, str]:
    """By part of the resource: who set it last, of those that are known.

    Whoever creates a resource is recorded for its defaults too, and `kubectl scale` for nothing.
    """
    is_annotated = (metadata.get("annotations") or {}).get(PAUSED_ANNOTATION) == "true"
    paths: dict[str, tuple[str, ...]] = {
        part: ("spec", part) for part in ("replicas", "worker", "paused")
    }
    if is_annotated:
        paths["paused"] = _PAUSED
    entries = sorted(metadata.get("managedFields") or (), key=lambda e: str(e.get("time") or ""))
    found = {}
    for entry in entries:
        for part, path in paths.items():
            if _has(entry.get("fieldsV1"), path):
                found[part] = str(entry.get("manager") or "")[:_LONGEST_NAME]
    return {part: name for part, name in found.items() if name}


def _has(fields: Any, path: tuple[str, ...]) -> bool:
    for name in path:
        fields = fields.get(f"f:{name}") if isinstance(fields, Mapping) else None
    return fields is not None
