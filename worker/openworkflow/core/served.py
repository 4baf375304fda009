"""What workers say that they serve, and what is to be said of a workflow that none of them does."""

import difflib
from dataclasses import dataclass

NEAREST = 3
"""Names that are offered for one that nobody serves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What workers say that they serve."""

    versions: tuple[tuple[str, str], ...] = ()
    """Name and version ("" for none) of each."""

    @property
    def known(self) -> bool:
        """Whether any worker has told; older ones do not."""
        return bool(self.versions)

    def serves(self, name: str, version: str | None) -> bool:
        """Whether some worker takes runs of this."""
        return (name, version or "") in self.versions

    def complaint(self, name: str, version: str | None) -> str | None:
        """What is to be said of a workflow that nobody serves; None if somebody may."""
        if not self.known or self.serves(name, version):
            return None
        if others := self.versions_of(name):
            wanted = f"version {version!r}" if version else "no version"
            known = " or ".join(f"version {v!r}" if v else "no version" for v in others)
            return f"no worker serves workflow {name!r} with {wanted}, but with {known}"
        return self.stranger(name)

    def stranger(self, name: str) -> str | None:
        """What is to be said of a name that nobody serves in any version; None if somebody may."""
        if not self.known or self.versions_of(name):
            return None
        near = self.nearest(name)
        hint = f"; those that are served include {', '.join(map(repr, near))}" if near else ""
        return f"no worker serves workflow {name!r}{hint}"

    def versions_of(self, name: str) -> list[str]:
        """The versions of this workflow that are served."""
        return sorted(version for served, version in self.versions if served == name)

    def nearest(self, name: str) -> tuple[str, ...]:
        """Names that are served and look like this one."""
        names = sorted({served for served, _ in self.versions} - {name})
        return tuple(difflib.get_close_matches(name, names, NEAREST))


NOBODY = Served()
"""Where no worker has told."""
