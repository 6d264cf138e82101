"""Every kind of bad message, every reason code among them: for tests of validation, and to inject into replays.

None depends on the time of day, and none is about a real product: ids begin with "bad". The good neighbours that some
bulks carry are valid records of the product "bad-neighbour".
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgpack

from feature_repo.views import input_hash
from streams.records import BEHAVIOR, CATALOG, MODELS, RESULT_SETS, partition_for
from streams.settings import Limits
from streams.validation import WHOLE, Reason

#: an event time (ms) long past for every broker: November 2010
LONG_AGO = 1_290_000_000_000
FAR_FUTURE = 253_402_300_799_999
NAN = float("nan")
LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class BadMessage:
    """A message that one reason code rejects, at `place`; `good` of its records count all the same.

    `partition` None: whichever the key gives; a message without a key may go to any.
    """

    name: str
    topic: str
    key: bytes | None
    value: bytes | None
    reason: Reason
    place: int = 0
    partition: int | None = None
    good: int = 0


def pack(value: object) -> bytes:
    packed = msgpack.packb(value)
    assert isinstance(packed, bytes)
    return packed


def product(**fields: Any) -> dict[str, Any]:
    return {"type": "product", "v": 1, "product_id": "bad", "event_time": LONG_AGO, **fields}


def behavior(**fields: Any) -> dict[str, Any]:
    tagged = {"type": "purchase", "v": 1, "event_id": "bad-event", "product_id": "bad", "event_time": LONG_AGO}
    return {**tagged, **fields}


def heartbeat(**fields: Any) -> dict[str, Any]:
    return {"type": "heartbeat", "v": 1, "event_time": LONG_AGO, **fields}


def result_set(**fields: Any) -> dict[str, Any]:
    candidates = [["bad-1", 1.0], ["bad-2", 0.5]]
    tagged = {"type": "result_set", "v": 1, "result_set_id": "bad", "event_time": LONG_AGO, "kind": "search"}
    return {**tagged, "candidates": candidates, **fields}


MODEL_VERSIONS: dict[str, Any] = {"product_encoder": 1, "query_encoder": 1, "ranker": 1}


def bundle(**fields: Any) -> dict[str, Any]:
    tagged = {"type": "bundle", "v": 1, "bundle": "bad", "version": 1, "models": MODEL_VERSIONS}
    return {**tagged, "input_hash": input_hash(), "price_weight": 1.0, **fields}


def without(record: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key != name}


def nested(levels: int) -> object:
    value: object = 1
    for _ in range(levels):
        value = [value]
    return value


def bad_messages(partitions: int = 4) -> list[BadMessage]:
    """All of them, for topics of so many partitions."""
    return [*_whole(), *_tags(), *_products(), *_behaviors(), *_result_sets(partitions), *_bundles(), *_bulks()]


def _whole() -> Iterator[BadMessage]:
    """Messages that hold no record at all."""

    def on_catalog(name: str, value: bytes, reason: Reason) -> BadMessage:
        return BadMessage(name, CATALOG, b"bad", value, reason, WHOLE)

    large = pack(product(junk=b"x" * LIMITS.message_bytes))
    yield on_catalog("larger than the limit", large, "too_large")
    yield on_catalog("nested nine levels deep", pack(product(junk=nested(8))), "too_deep")
    yield BadMessage("arrays in arrays for ever", BEHAVIOR, None, b"\x91" * 100_000 + b"\x01", "too_deep", WHOLE)
    yield BadMessage("a bulk with one deep record", CATALOG, None, pack([product(junk=nested(7))]), "too_deep", WHOLE)
    yield on_catalog("no bytes", b"", "not_msgpack")
    yield on_catalog("text", b"price=3", "not_msgpack")
    yield on_catalog("JSON", b'{"type": "product"}', "not_msgpack")
    yield on_catalog("cut short", pack(product(title="a title"))[:-3], "not_msgpack")
    yield on_catalog("bytes after the end", pack(product()) + b"\x00", "not_msgpack")
    yield on_catalog("a byte that msgpack never uses", b"\xc1", "not_msgpack")
    yield on_catalog("an extension type", pack(product(junk=msgpack.ExtType(5, b"xx"))), "not_msgpack")
    yield on_catalog("a timestamp extension", pack(product(event_time=msgpack.Timestamp(5))), "not_msgpack")
    yield on_catalog("numbers as field names", pack({1: 2}), "not_msgpack")
    yield on_catalog("an array that promises four billion entries", b"\x81\xa1a\xdd\xff\xff\xff\xff", "not_msgpack")
    yield on_catalog("a string that is not UTF-8", b"\x81\xa4type\xa2\xff\xfe", "bad_utf8")
    yield BadMessage("a delisting of an id that is not UTF-8", CATALOG, b"\xff\xfe", None, "bad_utf8", WHOLE)
    yield BadMessage("a delisting of a long id", CATALOG, b"x" * 129, None, "out_of_range", WHOLE)
    yield BadMessage("a null behaviour", BEHAVIOR, b"bad", None, "not_a_map", WHOLE)
    yield BadMessage("a null bundle", MODELS, b"bad", None, "not_a_map", WHOLE)
    yield on_catalog("a number", pack(42), "not_a_map")
    yield on_catalog("a string", pack("product"), "not_a_map")
    yield on_catalog("a nil", pack(None), "not_a_map")
    many = pack([heartbeat() for _ in range(LIMITS.records + 1)])
    yield BadMessage("more records than a bulk may have", BEHAVIOR, None, many, "too_many_records", WHOLE)
    yield BadMessage("a bulk with a key", CATALOG, b"bad", pack([product()]), "key_mismatch", WHOLE)


def _tags() -> Iterator[BadMessage]:
    """Records whose type or version is wrong."""

    def on_catalog(name: str, record: dict[str, Any], reason: Reason) -> BadMessage:
        return BadMessage(name, CATALOG, b"bad", pack(record), reason)

    yield on_catalog("no type", without(product(), "type"), "missing_field")
    yield on_catalog("no version", without(product(), "v"), "missing_field")
    yield on_catalog("an empty map", {}, "missing_field")
    yield on_catalog("a type that is a number", product(type=1), "wrong_type")
    yield on_catalog("a version that is a string", product(v="1"), "wrong_type")
    yield on_catalog("a version that is true", product(v=True), "wrong_type")
    yield on_catalog("a type nobody knows", product(type="banana"), "unknown_type")
    yield on_catalog("the type of another topic", behavior(), "unknown_type")
    yield on_catalog("a version to come", product(v=2), "unknown_version")
    yield on_catalog("version zero", product(v=0), "unknown_version")


def _products() -> Iterator[BadMessage]:
    def bad(name: str, reason: Reason, **fields: Any) -> BadMessage:
        return BadMessage(name, CATALOG, b"bad", pack(product(**fields)), reason)

    yield BadMessage("no product_id", CATALOG, b"bad", pack(without(product(), "product_id")), "missing_field")
    yield BadMessage("no event_time", CATALOG, b"bad", pack(without(product(), "event_time")), "missing_field")
    yield bad("a product_id that is a number", "wrong_type", product_id=17)
    yield bad("an empty product_id", "out_of_range", product_id="")
    yield bad("a product_id of 129 characters", "out_of_range", product_id="x" * 129)
    yield bad("a product_id of 129 bytes", "out_of_range", product_id="价" * 43)
    yield bad("a price in words", "wrong_type", price="4.25")
    yield bad("a price with decimals", "wrong_type", price=4.25)
    yield bad("a price that is true", "wrong_type", price=True)
    yield bad("a negative price", "out_of_range", price=-1)
    yield bad("a price beyond every currency", "out_of_range", price=2**60)
    yield bad("a stock below nothing", "out_of_range", stock=-5)
    yield bad("a currency in small letters", "out_of_range", currency="gbp")
    yield bad("a currency with a line break behind it", "out_of_range", currency="GBP\n")
    yield bad("a title that is bytes", "wrong_type", title=b"a title")
    yield bad("a title of a whole book", "out_of_range", title="x" * 10_001)
    yield bad("a category that is a string", "wrong_type", category="shirts")
    yield bad("a category of 33 levels", "out_of_range", category=["c"] * 33)
    yield bad("attributes that are not flat", "wrong_type", attributes={"size": ["S", "M"]})
    yield bad("an attribute that is not a number", "out_of_range", attributes={"weight": NAN})
    yield bad("65 attributes", "out_of_range", attributes={str(i): i for i in range(65)})
    yield bad("delisted as a number", "wrong_type", delisted=1)
    yield bad("a time in words", "bad_time", event_time="2010-12-01")
    yield bad("a time with decimals", "bad_time", event_time=1.29e12)
    yield bad("a time before time", "bad_time", event_time=-1)
    yield bad("a time that is null", "bad_time", event_time=None)
    yield bad("a time in microseconds", "bad_time", event_time=LONG_AGO * 1000)
    yield bad("a product from the year 9999", "from_the_future", event_time=FAR_FUTURE)
    yield BadMessage("the key of another product", CATALOG, b"other", pack(product()), "key_mismatch")
    yield BadMessage("a product without a key", CATALOG, None, pack(product()), "key_mismatch")
    yield bad("an empty picture", "bad_media", image=b"")
    yield bad("a picture of no known format", "bad_media", image=b"not a picture at all")
    yield bad("a sound as a picture", "bad_media", image=b"RIFF\x00\x00\x00\x00WAVEfmt ")
    yield bad("a video of no known format", "bad_media", video=b"\x00" * 64)
    yield bad("a sound of no known format", "bad_media", audio=b"\x00" * 64)
    yield bad("a reference cut short", "bad_media", image="sha256:abcdef")
    yield bad("a reference in capitals", "bad_media", image="sha256:" + "AB" * 32)
    yield bad("an empty address", "bad_media", image="")
    yield bad("an address of 3,000 characters", "bad_media", image="https://" + "x" * 3_000)
    yield bad("a picture that is a list", "wrong_type", image=[1, 2, 3])
    yield bad("an address on a host that is not allowed", "media_not_allowed", image="https://elsewhere.test/a.png")
    yield bad("a file of the worker's own", "media_not_allowed", image="file:///etc/passwd")
    yield bad("an address with credentials", "media_not_allowed", image="https://user:word@elsewhere.test/a.png")


def _behaviors() -> Iterator[BadMessage]:
    def bad(name: str, reason: Reason, **fields: Any) -> BadMessage:
        return BadMessage(name, BEHAVIOR, b"bad", pack(behavior(**fields)), reason)

    yield BadMessage("no event_id", BEHAVIOR, b"bad", pack(without(behavior(), "event_id")), "missing_field")
    yield bad("an event_id that is null", "wrong_type", event_id=None)
    yield bad("an event_id of 129 bytes", "out_of_range", event_id="é" * 65)
    yield bad("a user_id of 129 bytes", "out_of_range", user_id="é" * 65)
    yield bad("nothing bought", "out_of_range", quantity=0)
    yield bad("half a piece bought", "wrong_type", quantity=0.5)
    yield bad("a position below nothing", "out_of_range", position=-1)
    yield bad("a return from the future", "from_the_future", type="return", event_time=FAR_FUTURE)
    yield bad("a kind of event nobody knows", "unknown_type", type="refund")
    yield BadMessage("the key of another product's event", BEHAVIOR, b"x", pack(behavior()), "key_mismatch")
    future = pack(heartbeat(event_time=FAR_FUTURE))
    yield BadMessage("a heartbeat from the future", BEHAVIOR, None, future, "from_the_future", partition=0)
    yield BadMessage("a heartbeat with a key", BEHAVIOR, b"bad", pack(heartbeat()), "key_mismatch")
    yield BadMessage("a heartbeat without a time", BEHAVIOR, None, pack({"type": "heartbeat", "v": 1}), "missing_field")


def _result_sets(partitions: int) -> Iterator[BadMessage]:
    owner = partition_for("bad", partitions)

    def bad(name: str, reason: Reason, **fields: Any) -> BadMessage:
        return BadMessage(name, RESULT_SETS, b"bad", pack(result_set(**fields)), reason, partition=owner)

    many = [[f"bad-{i}", 1.0] for i in range(LIMITS.candidates + 1)]
    yield bad("more candidates than a set may have", "too_many_candidates", candidates=many)
    yield bad("no candidates", "out_of_range", candidates=[])
    yield bad("one candidate twice", "double_candidate", candidates=[["bad-1", 1.0], ["bad-1", 0.5]])
    yield bad("a score that is not a number", "out_of_range", candidates=[["bad-1", NAN]])
    yield bad("a score without an end", "out_of_range", candidates=[["bad-1", float("inf")]])
    yield bad("a score too great for the ranker", "out_of_range", candidates=[["bad-1", 1e300]])
    yield bad("a score in words", "wrong_type", candidates=[["bad-1", "high"]])
    yield bad("candidates without scores", "wrong_type", candidates=["bad-1", "bad-2"])
    yield bad("a candidate of three parts", "wrong_type", candidates=[["bad-1", 1.0, 2.0]])
    yield bad("a candidate without an id", "out_of_range", candidates=[["", 1.0]])
    yield bad("a kind of set nobody knows", "out_of_range", kind="banner")
    yield bad("an expiry before time", "out_of_range", expires_at=-1)
    yield bad("a context that is not flat", "wrong_type", context={"filters": {"colour": "white"}})
    yield bad("a set from the future", "from_the_future", event_time=FAR_FUTURE)
    yield BadMessage(
        "the key of another set", RESULT_SETS, b"other", pack(result_set()), "key_mismatch", partition=owner
    )
    if partitions > 1:
        elsewhere = (owner + 1) % partitions
        message = pack(result_set())
        yield BadMessage("a set in another's partition", RESULT_SETS, b"bad", message, "wrong_partition", 0, elsewhere)


def _bundles() -> Iterator[BadMessage]:
    def bad(name: str, reason: Reason, **fields: Any) -> BadMessage:
        return BadMessage(name, MODELS, b"bad", pack(bundle(**fields)), reason)

    yield bad("a model version in words", "wrong_type", models={**MODEL_VERSIONS, "ranker": "latest"})
    yield bad("a bundle without a ranker", "missing_field", models=without(MODEL_VERSIONS, "ranker"))
    yield bad("a bundle for other inputs", "out_of_range", input_hash="0123456789abcdef")
    yield bad("bundle version zero", "out_of_range", version=0)
    yield bad("a weight that is not a number", "out_of_range", price_weight=NAN)
    yield BadMessage("no input_hash", MODELS, b"bad", pack(without(bundle(), "input_hash")), "missing_field")


def _bulks() -> Iterator[BadMessage]:
    """One bad record among good ones."""
    first, last = product(product_id="bad-neighbour", price=100), product(product_id="bad-neighbour", price=200)

    def among(name: str, packed: bytes, reason: Reason) -> BadMessage:
        value = b"\x93" + pack(first) + packed + pack(last)
        return BadMessage(name, CATALOG, None, value, reason, place=1, partition=0, good=2)

    yield among("a negative price in a bulk", pack(product(price=-1)), "out_of_range")
    yield among("a number in a bulk", pack(42), "not_a_map")
    yield among("a list in a bulk", pack([product()]), "not_a_map")
    yield among("a record from the future in a bulk", pack(product(event_time=FAR_FUTURE)), "from_the_future")
    yield among("a record in bad UTF-8 in a bulk", b"\x81\xa4type\xa2\xff\xfe", "bad_utf8")
    yield among("an extension type in a bulk", b"\xd4\x05\x00", "not_msgpack")
    yield among("a heartbeat on the catalog in a bulk", pack(heartbeat()), "unknown_type")
