"""Counts the modules of each package, and who imports whom: the shape that a newcomer has to learn.

    python -m tools.rooms

A room is a folder, or a module beside the folders; an arrow is a room that imports another one.
"""

from __future__ import annotations

import grimp

PACKAGES = ("openworkflow", "openworkflow_contract", "openworkflow_operator")


def shape(graph: grimp.ImportGraph, package: str) -> tuple[int, int, int, int]:
    """Modules and imports between them, then rooms and arrows between them."""
    modules = {name for name in graph.modules if name.startswith(f"{package}.")}
    imports = {
        (one, other)
        for one in modules
        for other in graph.find_modules_directly_imported_by(one)
        if other in modules
    }
    rooms = {_room(name) for name in modules}
    arrows = {(_room(one), _room(other)) for one, other in imports}
    return len(modules), len(imports), len(rooms), sum(one != other for one, other in arrows)


def _room(module: str) -> str:
    return ".".join(module.split(".")[:2])


def main() -> None:
    """Print a line for each package."""
    graph = grimp.build_graph(*PACKAGES, exclude_type_checking_imports=True, cache_dir=None)
    for package in PACKAGES:
        modules, imports, rooms, arrows = shape(graph, package)
        inside, outside = f"{modules} modules, {imports} imports", f"{rooms} rooms, {arrows} arrows"
        print(f"{package}: {inside}; {outside}")


if __name__ == "__main__":
    main()
