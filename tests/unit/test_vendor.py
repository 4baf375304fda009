"""The scripts of others that the wheel has are the ones that were fetched, by hash."""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path

import pytest

from tools.vendor import BILL, HOME, LICENSES, PACKAGES, Vendored, integrity_of, troubles, unpack


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(HOME, tmp_path / "vendor"))


def test_the_scripts_that_are_shipped_are_the_ones_that_were_fetched() -> None:
    assert [] == troubles(HOME)


def test_every_package_is_named_with_its_licence() -> None:
    words = (HOME / LICENSES).read_text(encoding="utf-8")

    for package in PACKAGES:
        assert f"{package.name} {package.version} ({package.license})" in words


def test_a_script_that_was_changed_is_found(copy: Path) -> None:
    path = copy / "htmx.min.js"
    path.write_bytes(path.read_bytes() + b"\n")

    [trouble] = troubles(copy)
    assert trouble.startswith("htmx.min.js was changed: sha256 ")


def test_a_script_that_is_missing_and_one_that_nobody_asked_for_are_found(copy: Path) -> None:
    (copy / "htmx.min.js").rename(copy / "other.js")

    assert [
        "htmx.min.js: No such file or directory",
        f"other.js is not in {BILL}",
    ] == troubles(copy)


def test_files_of_another_version_are_not_taken_for_the_ones_asked_for(copy: Path) -> None:
    bill = json.loads((copy / BILL).read_text())
    bill[0]["version"] = "3.9.9"
    (copy / BILL).write_text(json.dumps(bill))

    found = troubles(copy)
    assert f"{BILL} lacks htmx.org {PACKAGES[0].version} dist/htmx.min.js" in found
    assert "nobody asks for htmx.org 3.9.9 dist/htmx.min.js" in found


def test_a_folder_without_a_bill_is_no_folder_without_trouble(tmp_path: Path) -> None:
    [trouble] = troubles(tmp_path)
    assert trouble.startswith(f"{BILL}: ")


def test_what_is_asked_for_is_taken_from_an_archive_and_nothing_else(tmp_path: Path) -> None:
    source, home = tmp_path / "package", tmp_path / "home"
    (source / "dist").mkdir(parents=True)
    home.mkdir()
    for name, words in {
        "dist/a.js": "a()",
        "dist/b.js": "b()",
        "LICENSE": "Do as you like.\n",
    }.items():
        (source / name).write_text(words)
    archive = tmp_path / "it.tgz"
    with tarfile.open(archive, "w:gz") as packed:
        packed.add(source, "package")

    package = Vendored("it", "1.0", "", "0BSD", {"dist/a.js": "a.js"})
    [line], words = unpack(package, archive, home)

    assert ["a.js"] == [path.name for path in home.iterdir()]
    assert ("it", "dist/a.js", "a.js") == (line["package"], line["source"], line["file"])
    assert "a.js: it 1.0 (0BSD)\n\nDo as you like.\n" == words


def test_the_hash_of_an_archive_is_written_as_npm_writes_it() -> None:
    of_nothing = (
        "z4PhNX7vuL3xVChQ1m2AB9Yg5AULVxXcg/SpIdNs6c5H0NE8XYXysP+DGNKHfuwvY7kxvUdBeoGlODJ6+SfaPg=="
    )

    assert f"sha512-{of_nothing}" == integrity_of(b"")
