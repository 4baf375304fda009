"""Tags of runs: names and texts by which people find them. Pure."""

import json
import re
from collections.abc import Mapping

from openworkflow.core.asked import check_is
from openworkflow.core.errors import ConfigurationError
from openworkflow.core.names import storable_text
from openworkflow.core.shown import shown

MOST_TAGS = 50
VALUE_LIMIT = 500
"""Characters of a tag's value."""
TAG_NAME = re.compile(r"[A-Za-z_][\w.-]{0,99}", re.ASCII)


def tag_name(name: object) -> str:
    """Return `name` if a filter can say it: raises ConfigurationError."""
    if type(name) is str and TAG_NAME.fullmatch(name):
        return name
    raise ConfigurationError(
        f"a tag's name is up to 100 letters, digits and _.- that begin with a letter, "
        f"not {shown(name, 120)}"
    )


def encode_tags(tags: Mapping[str, str] | None) -> str | None:
    """Tags as JSON text, the same for the same tags; None for none. Raises ConfigurationError."""
    if tags is None:
        return None
    check_is("tags", tags, Mapping, "names and texts, such as {'customer': 'acme'}")
    if not tags:
        return None
    if len(tags) > MOST_TAGS:
        raise ConfigurationError(f"a run has at most {MOST_TAGS} tags, not {len(tags)}")
    for name, value in tags.items():
        storable_text(f"tag {tag_name(name)!r}", value, VALUE_LIMIT)
    return json.dumps(dict(tags), sort_keys=True, ensure_ascii=False)
