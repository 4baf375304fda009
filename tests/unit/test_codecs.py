"""The codecs one by one: what they refuse, what they never show, and whom they do not trust."""

from __future__ import annotations

import base64
import zlib
from pathlib import Path
from typing import Any

import pytest

from openworkflow.codecs import (
    Compression,
    DirectoryStore,
    Encoded,
    Encryption,
    Offload,
    Place,
)
from openworkflow.codecs import compression as compressions
from openworkflow.codecs import payloads as module
from openworkflow.codecs.payloads import IN_THREAD_BYTES, Payloads
from openworkflow.core.envelope import Envelope
from openworkflow.core.errors import CodecError, ConfigurationError, PayloadUnreadable

KEY, OTHER = base64.b64encode(bytes(32)).decode(), base64.b64encode(bytes(range(32))).decode()
PLACE = Place("default", "step", "charge")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "keys are written id:base64"),
        ("", "keys are written id:base64"),
        (KEY, "keys are written id:base64"),
        (f"a:{KEY},a:{OTHER}", "each id once"),
        (f"a:{KEY[:-4]}", "key 'a' is not 32 bytes, or base64 of these"),
        (f"a:{KEY}!", "key 'a' is not 32 bytes"),
        (f"a b:{KEY}", "the id of a key is 1 to 64 letters"),
    ],
)
def test_keys_that_are_none_are_refused_and_never_shown(text: str | None, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says) as raised:
        Encryption.from_text(text)

    assert KEY[:-4] not in str(raised.value)


@pytest.mark.parametrize(
    ("keys", "options", "says"),
    [
        ({}, {}, "keys are bytes by id"),
        (KEY, {}, "keys are bytes by id"),
        ({"a": b"short"}, {}, "key 'a' is not 32 bytes"),
        ({"a": 7}, {}, "key 'a' is not 32 bytes"),
        ({7: KEY}, {}, "the id of a key is"),
        ({"a": KEY}, {"encrypt_with": "b"}, "encrypt_with is 'b', which is none of the keys: 'a'"),
    ],
)
def test_arguments_that_are_no_keys_are_refused(keys: Any, options: Any, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        Encryption(keys, **options)


def test_no_key_is_shown_by_its_codec() -> None:
    codec = Encryption.from_text(f"a:{KEY},b:{OTHER}")

    assert repr(codec) == "<Encryption with keys 'a', 'b'>"
    with pytest.raises(CodecError) as raised:
        codec.decode(b"", "c", PLACE)
    assert KEY not in str(raised.value)


def test_the_same_value_is_never_encrypted_to_the_same_bytes() -> None:
    codec = Encryption({"a": KEY})

    assert len({codec.encode(b"1", PLACE) for _ in range(100)}) == 100


def test_a_codec_may_only_decode() -> None:
    both = [Encryption({"a": KEY}, encrypt_with=None), Compression(over=None)]

    assert [codec.encode(b"1" * 10_000, PLACE) for codec in both] == [None, None]


@pytest.mark.parametrize("data", [b"", b"no zlib", zlib.compress(b"1" * 5000)[:-5]])
def test_compressed_data_that_is_damaged_is_no_value(data: bytes) -> None:
    with pytest.raises(CodecError, match="its compressed data is"):
        Compression().decode(data, "", PLACE)


def test_a_few_bytes_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compressions, "MOST_PAYLOAD_LIMIT", 1000)

    assert Compression().decode(zlib.compress(b"1" * 1000), "", PLACE) == b"1" * 1000
    with pytest.raises(CodecError, match="larger than a value can be"):
        Compression().decode(zlib.compress(b"1" * 1001), "", PLACE)


@pytest.mark.parametrize("option", ["over", "level"])
@pytest.mark.parametrize("value", [-1, "4KiB", 1.5, True])
def test_options_of_compression_are_numbers(option: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=option):
        Compression(**{option: value})


@pytest.mark.parametrize(
    "name", ["", "..", "../secret", "default/../../secret", "/etc/passwd", "a//b", ".", "a\0b"]
)
async def test_a_name_in_the_database_leads_to_no_other_file(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    store = DirectoryStore(tmp_path / "values")

    with pytest.raises(CodecError, match="is no name of an object"):
        await Offload(store).decode(b"", name, PLACE)
    with pytest.raises(CodecError, match="is no name of an object"):
        store.get(name)


async def test_a_namespace_is_one_folder_whatever_it_is_called(tmp_path: Path) -> None:
    codec = Offload(DirectoryStore(tmp_path), over=0)

    for namespace in ("../up", "a/b", ".", "ü" * 200):
        encoded = await codec.encode(b"value", Place(namespace, "input", "w"))
        assert encoded is not None
        assert await codec.decode(b"", encoded.note, PLACE) == b"value"

    assert len(list(tmp_path.iterdir())) == 4  # noqa: ASYNC240
    assert not list(tmp_path.rglob("*.part"))  # noqa: ASYNC240


class Odd:
    """A codec that answers with what it is made with."""

    name = "odd"

    def __init__(self, answer: Any) -> None:
        self.answer, self.asked = answer, 0

    def encode(self, data: bytes, place: Place) -> Any:
        self.asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    decode: Any = None


@pytest.mark.parametrize(
    ("answer", "tries", "says"),
    [
        (b"bytes", 1, "TypeError: it answered with bytes"),
        ("text", 1, "TypeError: it answered with str"),
        (KeyError("key"), 1, "KeyError"),
        (CodecError("refused"), 1, "refused"),
        (ConnectionError("away"), 3, "ConnectionError: away"),
    ],
    ids=repr,
)
async def test_a_codec_is_asked_again_where_that_may_help(
    monkeypatch: pytest.MonkeyPatch, answer: Any, tries: int, says: str
) -> None:
    monkeypatch.setattr(module, "PAUSES_SECONDS", (0.0, 0.0))
    codec = Odd(answer)

    with pytest.raises(CodecError, match=says):
        await Payloads([codec], "default", 1000).seal("1", "step", "a")
    assert codec.asked == tries


async def test_a_codec_is_asked_beside_the_loop_for_a_large_value_only() -> None:
    import threading

    here, threads = threading.get_ident(), []

    class Noting(Odd):
        def encode(self, data: bytes, place: Place) -> Encoded:
            threads.append(threading.get_ident())
            return Encoded(b"")

    payloads = Payloads([Noting(None)], "default", 1000)
    await payloads.seal("1", "step")
    await payloads.seal("1" * (IN_THREAD_BYTES + 1), "step")

    assert [thread == here for thread in threads] == [True, False]


@pytest.mark.parametrize(
    ("envelope", "says"),
    [
        (Envelope(("zlib",), b"none"), "its compressed data is damaged"),
        (Envelope(("aes-gcm:gone",), b"x"), "encrypted with key 'gone', which this process has"),
        (Envelope(("aes-gcm:a",), b"x"), "does not decrypt with key 'a'"),
        (Envelope(("rot13",), b"x"), "has no codec 'rot13'; its codecs are zlib, aes-gcm"),
        (Envelope((), b"1"), "in an envelope"),
        (Envelope(("zlib",), zlib.compress(b"\xff")), "is no text"),
        (Envelope(("zlib",), b"", version=2), "encoded by a newer program"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_what_cannot_be_decoded_says_what_it_is_and_why(envelope: Any, says: str) -> None:
    codecs = [Compression(), Encryption({"a": KEY})]  # for checkers of types, a list of codecs
    payloads = Payloads(codecs, "default", 1000)

    with pytest.raises(PayloadUnreadable, match=f"^the result of step 'a' cannot .*{says}"):
        await payloads.open(envelope.text(), "step", "a")


async def test_plain_values_and_nothing_go_through_without_a_codec() -> None:
    payloads = Payloads([], "default", 10)

    assert not payloads.seals
    assert payloads.plain_limit == 10
    for text in (None, "1", '{"$ow": 1}'):
        assert await payloads.seal(text, "step") is text
        assert await payloads.open(text, "step") is text
