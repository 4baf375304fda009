"""Codecs: the module that has them, keys, and what others may write."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from openworkflow import BackendPostgres, OpenWorkflow, Step, workflow
from openworkflow.codecs import Compression, Encoded, Encryption, Offload
from openworkflow.codecs.payloads import Payloads
from openworkflow.core.envelope import read_envelope
from tests.docs.blocks import Page

if TYPE_CHECKING:
    import pytest

    from openworkflow.testing import Environment

PAGE = Page("docs/codecs.md")
TEXT = '"' + "value " * 100_000 + '"'


@workflow
async def fulfil(item: str, step: Step) -> str:
    return f"receipt for a {item}"


async def through(codecs: list[Any]) -> tuple[str, ...]:
    """The codecs that took part in storing a large value, which comes back."""
    payloads = Payloads(codecs, "default", 10_000_000)
    sealed = await payloads.seal(TEXT, "step", "made")
    assert await payloads.open(sealed, "step", "made") == TEXT
    envelope = read_envelope(sealed)
    assert envelope is not None
    return tuple(each.partition(":")[0] for each in envelope.codecs)


async def test_a_module_has_the_codecs_of_clients_and_workers(
    ow_env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP_KEYS", f"2026-11:{Encryption.new_key()}")
    codec = (await PAGE.block("# shop/codecs.py").run())["codec"]
    assert await through(codec) == ("zlib", "aes-gcm")

    async with await BackendPostgres.connect(ow_env.url) as backend:
        names = await PAGE.block("ow = OpenWorkflow(backend, codec=codec)").run(
            OpenWorkflow=OpenWorkflow, backend=backend, codec=codec, fulfil=fulfil
        )
        async with names["worker"]:
            run = await names["ow"].run_workflow(fulfil, "lamp")
            assert await run.result("20s") == "receipt for a lamp"
        stored = await OpenWorkflow(backend).get_run(run.id)
        assert stored.run.output["$ow"]["by"] == ["aes-gcm:2026-11"]


async def test_the_first_key_encrypts_and_all_decrypt() -> None:
    new, old = Encryption.new_key(), Encryption.new_key()
    block = PAGE.block("both = Encryption(")
    both = (await block.run(Encryption=Encryption, new_key=new, old_key=old))["both"]
    before = Payloads([Encryption({"2026-11": old})], "default", 1000)
    after = Payloads([both], "default", 1000)

    assert await after.open(await before.seal("1", "input"), "input") == "1"
    envelope = read_envelope(await after.seal("1", "input"))
    assert envelope is not None
    assert envelope.codecs == ("aes-gcm:2026-12",)


async def test_large_values_are_kept_elsewhere(tmp_path: Any) -> None:
    block = PAGE.block("from openworkflow.codecs import DirectoryStore, Offload")
    names: dict[str, Any] = {"keys": {"k": Encryption.new_key()}}
    names |= {"Compression": Compression, "Encryption": Encryption}
    found = await block.run(**names)
    assert [each.name for each in found["codec"]] == ["zlib", "aes-gcm", "object"]

    class NoSuchKey(Exception):
        pass

    kept: dict[str, bytes] = {}

    def get_object(**asked: str) -> dict[str, Any]:
        if asked["Key"] not in kept:
            raise NoSuchKey
        return {"Body": SimpleNamespace(read=lambda: kept[asked["Key"]])}

    client = SimpleNamespace(
        put_object=lambda **asked: kept.update({asked["Key"]: asked["Body"]}),
        get_object=get_object,
        exceptions=SimpleNamespace(NoSuchKey=NoSuchKey),
    )
    store = (await PAGE.block("class S3Store:").run())["S3Store"](client, "values")
    assert await through([Offload(store)]) == ("object",)
    assert len(kept) == 1


async def test_a_codec_of_ones_own() -> None:
    async def encrypt(key_id: str, data: bytes, context: str) -> bytes:
        return f"{key_id} {context} ".encode() + data[::-1]

    async def decrypt(key_id: str, data: bytes, context: str) -> bytes:
        return data.removeprefix(f"{key_id} {context} ".encode())[::-1]

    kms = (await PAGE.block("class Kms:").run(Encoded=Encoded))["Kms"]
    client = SimpleNamespace(encrypt=encrypt, decrypt=decrypt)
    assert await through([kms(client, "key-1")]) == ("kms",)
