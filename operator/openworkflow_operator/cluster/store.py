"""The operator's picture of the cluster: the resources, what they own, and their pods.

Watches fill it, full lists correct it, and answers to the operator's own writes go in at once, so
that a decision never takes the operator's last write for somebody else's.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from openworkflow_operator.api import kinds
from openworkflow_operator.api.kinds import Kind
from openworkflow_operator.api.names import BUILD_LABEL, OWNER_LABEL, deployment_name, worker_name
from openworkflow_operator.api.spec import Key
from openworkflow_operator.desired.resources import is_owned

Object = Mapping[str, Any]

#: Deleted objects that are remembered as such, so that a late answer does not bring one back.
MOST_GRAVES: Final = 10_000


class Store:
    """Objects by kind and key. `on_change` hears which resource a change concerns."""

    def __init__(self, on_change: Callable[[Key], None] = lambda _: None) -> None:
        self.on_change = on_change
        self._objects: dict[Kind, dict[Key, Object]] = defaultdict(dict)
        self._pods: dict[Key, set[Key]] = defaultdict(set)
        self._fleets: dict[Key, set[Key]] = defaultdict(set)
        self._gone: dict[str, Object] = {}
        self._listed: set[tuple[Kind, str | None]] = set()

    def put(self, kind: Kind, item: Object) -> None:
        """Take in an object, unless it is older than what is known."""
        key = _key(item)
        grave = self._gone.get(item["metadata"].get("uid", ""))
        if grave is not None and not _is_before(grave, item):
            return  # the answer to a write that was overtaken by the deletion
        known = self._objects[kind].get(key)
        if known is not None and (item == known or _is_older(item, known)):
            return
        if known is not None and _owner(kind, known) != _owner(kind, item):
            self._leave(kind, key, known)  # somebody gave it another owner's label
        self._objects[kind][key] = item
        if kind in (kinds.POD, kinds.DEPLOYMENT):
            self._index(kind)[_owner(kind, item)].add(key)
        self.on_change(_owner(kind, item))

    def remove(self, kind: Kind, item: Object) -> None:
        """Forget an object that was deleted, or that lost the label by which it is watched."""
        key = _key(item)
        known = self._objects[kind].get(key)
        if known is None or _is_another(known, item):
            return
        del self._objects[kind][key]
        self._bury(known if _is_before(item, known) else item)
        self._leave(kind, key, known)

    def replace(
        self, kind: Kind, namespace: str | None, items: Iterable[Object], version: str
    ) -> None:
        """Take in a full list of this version: what is not in it is gone, unless it is newer."""
        listed = {_key(item): item for item in items}
        self._listed.add((kind, namespace))
        taken = {"metadata": {"resourceVersion": version}}
        for key, known in list(self._objects[kind].items()):
            is_elsewhere = namespace not in (None, key.namespace)
            if not (key in listed or is_elsewhere or _is_before(taken, known)):
                seen = {**known["metadata"], "resourceVersion": version}
                self.remove(kind, {**known, "metadata": seen})
        for item in listed.values():
            self.put(kind, item)

    def lose(self, kind: Kind, namespace: str | None) -> None:
        """There is neither a watch nor a list any more: what is there may not be known."""
        self._listed.discard((kind, namespace))

    def knows(self, kind: Kind, namespace: str) -> bool:
        """Whether what is not here is not there."""
        return not self._listed.isdisjoint({(kind, None), (kind, namespace)})

    def resource(self, key: Key) -> Object | None:
        """The WorkflowNamespace, None if there is none."""
        return self._objects[kinds.WORKFLOW_NAMESPACE].get(key)

    def resources(self) -> list[Key]:
        """Every WorkflowNamespace."""
        return list(self._objects[kinds.WORKFLOW_NAMESPACE])

    def get(self, kind: Kind, child: Key) -> Object | None:
        """The object, None if none with the owner label is known."""
        return self._objects[kind].get(child)

    def owned(self, key: Key, uid: str) -> dict[Kind, Object]:
        """What there is of the objects that the resource with this uid owns."""
        child = Key(key.namespace, worker_name(key.name))
        found = ((kind, self._objects[kind].get(child)) for kind in kinds.OWNED)
        return {kind: item for kind, item in found if item is not None and is_owned(item, uid)}

    def fleets(self, key: Key, uid: str) -> dict[str, Object]:
        """The Deployments of the builds of the resource with this uid, by build."""
        deployments = self._objects[kinds.DEPLOYMENT]
        found = (deployments[child] for child in self._fleets.get(key, ()))
        labelled = ((item["metadata"]["labels"].get(BUILD_LABEL), item) for item in found)
        return {
            build: item
            for build, item in labelled
            if build
            and item["metadata"]["name"] == deployment_name(key.name, build)
            and is_owned(item, uid)
        }

    def deployments(self, key: Key, uid: str, wanted: str | None) -> list[Object]:
        """Deployments of a resource: that of the desired build first, or the one without builds."""
        if wanted is None:
            found = self.owned(key, uid).get(kinds.DEPLOYMENT)
            return [] if found is None else [found]
        fleets = self.fleets(key, uid)
        return [fleets[build] for build in sorted(fleets, key=lambda build: build != wanted)]

    def pods(self, key: Key) -> list[Object]:
        """The worker pods of the resource."""
        pods = self._objects[kinds.POD]
        return [pods[pod] for pod in self._pods.get(key, ())]

    def scaled(self, child: Key, scale: Object) -> None:
        """Take in the answer of the scale subresource: it is the Deployment's newest version."""
        known = self._objects[kinds.DEPLOYMENT].get(child)
        version = scale["metadata"].get("resourceVersion")
        if known is None or version is None:
            return
        spec = {**known["spec"], "replicas": scale["spec"].get("replicas", 0)}
        metadata = {**known["metadata"], "resourceVersion": version}
        if _is_before(scale, known):
            return  # a watch was faster
        self._objects[kinds.DEPLOYMENT][child] = {**known, "spec": spec, "metadata": metadata}

    def _index(self, kind: Kind) -> dict[Key, set[Key]]:
        return self._pods if kind is kinds.POD else self._fleets

    def _leave(self, kind: Kind, key: Key, known: Object) -> None:
        """Take it out of the index of the owner that it was known to have."""
        owner = _owner(kind, known)
        if kind in (kinds.POD, kinds.DEPLOYMENT) and owner in self._index(kind):
            self._index(kind)[owner].discard(key)
            if not self._index(kind)[owner]:
                del self._index(kind)[owner]
        self.on_change(owner)

    def _bury(self, item: Object) -> None:
        """Remember until which version it is gone: one that is labelled again comes back."""
        uid, version = item["metadata"].get("uid"), item["metadata"].get("resourceVersion")
        if uid is not None and version:  # without one, only its kind is not served for now
            self._gone[uid] = {"metadata": {"resourceVersion": version}}
            if len(self._gone) > MOST_GRAVES:
                del self._gone[next(iter(self._gone))]


def _key(item: Object) -> Key:
    metadata = item["metadata"]
    return Key(metadata["namespace"], metadata["name"])


def _owner(kind: Kind, item: Object) -> Key:
    """The WorkflowNamespace that the object belongs to by its label."""
    key = _key(item)
    if kind is kinds.WORKFLOW_NAMESPACE:
        return key
    labels = item["metadata"].get("labels") or {}
    return Key(key.namespace, labels.get(OWNER_LABEL, ""))


def _is_another(known: Object, item: Object) -> bool:
    """Whether the item is an earlier object of the same name, whose end is told late."""
    uids = [each["metadata"].get("uid") for each in (known, item)]
    return None not in uids and uids[0] != uids[1] and _is_before(item, known)


def _is_older(item: Object, known: Object) -> bool:
    """Whether the item is from before what is known. The same version may say more."""
    is_same = item["metadata"].get("uid") == known["metadata"].get("uid")
    return is_same and _is_before(item, known)


def _is_before(one: Object, other: Object) -> bool:
    """Whether its version is the older one; false where that cannot be told."""
    try:
        versions = [int(each["metadata"]["resourceVersion"]) for each in (one, other)]
    except (KeyError, ValueError):
        return False
    return versions[0] < versions[1]
