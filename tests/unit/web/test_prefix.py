"""Where the dashboard is, whatever is in front of it takes off a path."""

from __future__ import annotations

import pytest

from openworkflow.core.errors import ConfigurationError
from openworkflow.web.prefix import checked, whole


@pytest.mark.parametrize(
    ("root", "path"),
    [
        ("/api/workflows", "/api/workflows/n/default"),
        ("/api/workflows", "/workflows/n/default"),  # as of FastAPI(root_path="/api")
        ("/api/workflows", "/n/default"),
    ],
)
def test_a_path_is_whole_whatever_was_taken_off(root: str, path: str) -> None:
    assert "/api/workflows/n/default" == whole(root, path)


def test_what_only_begins_alike_is_no_prefix() -> None:
    assert "/flow/flows" == whole("/flow", "/flows")
    assert "/flow" == whole("/flow", "/flow")


@pytest.mark.parametrize("root", ["/n", "/static", "/a/n", "/n/static"])
@pytest.mark.parametrize("rest", ["/n/default", "/n/default/runs", "/static/a.js", "/login", "/"])
def test_a_prefix_may_be_a_word_of_the_dashboards_own_paths(root: str, rest: str) -> None:
    """Under /n, where a proxy took that off, no page was found."""
    assert root + rest == whole(root, rest)
    assert root + rest == whole(root, root + rest)
    parts = root.split("/")
    if len(parts) > 2:
        assert root + rest == whole(root, f"/{parts[2]}{rest}")


@pytest.mark.parametrize("prefix", ["", "/", "/a", "/a/", "/a.b/c-d~e_f"])
def test_a_prefix_has_no_slash_at_its_end(prefix: str) -> None:
    assert prefix.rstrip("/") == checked(prefix)


@pytest.mark.parametrize(
    "prefix", ["a", "//a", "/a//b", "/..", "/a/../b", "/a?b", "/a b", "/<b>", "https://a/b", "/é"]
)
def test_what_is_no_path_is_refused(prefix: str) -> None:
    with pytest.raises(ConfigurationError, match="a prefix is a path, such as /workflows"):
        checked(prefix)
