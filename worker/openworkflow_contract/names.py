"""Names that both sides read and write."""

import re

BUILD_ID = re.compile(r"[\w.:/@+-]{1,128}", re.ASCII)
"""What a build may be called: a label of a metric, a part of a URL and of a status."""
