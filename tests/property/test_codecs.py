"""What codecs have encoded comes back as it would have without them, to the order of each dict."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openworkflow.codecs import Compression, DirectoryStore, Encryption, Offload, PayloadCodec
from openworkflow.codecs.payloads import Payloads
from openworkflow.core.envelope import Opened
from openworkflow.core.errors import PayloadUnreadable
from openworkflow.core.serialization import codec_for

LIMIT = 10_000_000
KEYS = {"k1": bytes(range(32)), "k2": bytes(32)}
TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS,
    lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner),
    max_leaves=30,
)
KINDS = st.sampled_from(["input", "result", "step", "signal", "event", "status"])


def stack(name: str, folder: Path) -> list[PayloadCodec]:
    every: dict[str, PayloadCodec] = {
        "c": Compression(over=0),
        "e": Encryption(KEYS),
        "o": Offload(DirectoryStore(folder), over=0),
    }
    return [every[letter] for letter in name]


@given(st.sampled_from(["c", "e", "o", "ce", "ec", "ceo", "eo", "co"]), VALUES, KINDS, TEXTS)
def test_a_value_comes_back_as_a_replay_without_codecs_would_see_it(
    tmp_path_factory: Any, name: str, value: Any, kind: str, of: str
) -> None:
    payloads = Payloads(stack(name, tmp_path_factory.getbasetemp()), "default", LIMIT)
    codec = codec_for(Any)
    text = codec.encode(value, "value")

    sealed = asyncio.run(payloads.seal(text, kind, of))
    back = asyncio.run(payloads.open(sealed, kind, of))

    if not isinstance(back, Opened):  # no codec would have it; jsonb orders its keys
        assert sealed == text == back
        return
    assert back.stored == sealed
    # As text, which shows the order of keys, and 1 apart from 1.0 and True.
    assert json.dumps(codec.decode(back)) == json.dumps(codec.as_replayed(value, text))


@given(VALUES.filter(lambda value: value is not None), st.data())
def test_a_value_that_was_changed_or_moved_is_never_taken_for_one(
    value: Any, data: st.DataObject
) -> None:
    payloads = Payloads([Encryption(KEYS)], "default", LIMIT)
    other = Payloads([Encryption(KEYS)], "other", LIMIT)
    text = codec_for(Any).encode(value, "value")
    sealed = asyncio.run(payloads.seal(text, "step", "a"))
    assert sealed is not None
    fields = json.loads(sealed)
    held = bytearray(base64.b64decode(fields["$ow"]["data"]))
    held[data.draw(st.integers(0, len(held) - 1))] ^= data.draw(st.integers(1, 255))
    fields["$ow"]["data"] = base64.b64encode(held).decode()
    changed = json.dumps(fields)
    renamed = sealed.replace("aes-gcm:k1", "aes-gcm:k2")

    for reader, found, kind, name in (
        (payloads, changed, "step", "a"),
        (payloads, renamed, "step", "a"),
        (payloads, sealed, "step", "b"),
        (payloads, sealed, "result", "a"),
        (other, sealed, "step", "a"),
    ):
        with pytest.raises(PayloadUnreadable, match=r"key 'k[12]'"):
            asyncio.run(reader.open(found, kind, name))
