"""bytes -> records or rejections."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import asdict

from feature_repo.events import Behavior, Bundle, Heartbeat, Product, ResultSet
from feature_repo.features import delisting
from feature_repo.views import input_hash
from streams.records import (
    BEHAVIOR,
    CATALOG,
    MODELS,
    RESULT_SETS,
    Record,
    encode_bulk,
    encode_record,
    partition_for,
    record_key,
)
from streams.settings import Limits
from streams.validation import REASONS, WHOLE, Decoded, Reason, Rejected, decode, decode_usual, is_allowed, split_bulk
from tests.bad_messages import (
    LONG_AGO,
    MODEL_VERSIONS,
    BadMessage,
    bad_messages,
    behavior,
    bundle,
    heartbeat,
    nested,
    pack,
    product,
    result_set,
)

NOW = LONG_AGO + 60_000
PARTITIONS = 4
LIMITS = Limits()
PNG = b"\x89PNG\r\n\x1a\n" + b"\x00" * 8


def read(
    topic: str,
    key: bytes | None,
    value: bytes | None,
    *,
    partition: int = 0,
    kafka_time: int = NOW,
    hosts: tuple[str, ...] = (),
    limits: Limits = LIMITS,
) -> Decoded:
    return decode(
        topic,
        key,
        value,
        kafka_time=kafka_time,
        partition=partition,
        partitions=PARTITIONS,
        limits=limits,
        media_hosts=hosts,
    )


def one(topic: str, record: Record) -> Decoded:
    key = record_key(record)
    partition = 0 if key is None else partition_for(key.decode(), PARTITIONS)
    return read(topic, key, encode_record(record), partition=partition)


RECORDS: list[tuple[str, Record]] = [
    (CATALOG, Product(product_id="p1", event_time=LONG_AGO)),
    (
        CATALOG,
        Product(
            product_id="价" * 42,
            event_time=0,
            title="白色T恤",
            description=None,
            brand="",
            category=["服装", "T恤"],
            attributes={"size": "M", "weight": 0.2, "pieces": 1, "new": True, "note": None},
            price=425,
            currency="GBP",
            stock=0,
            image=PNG,
            video="sha256:" + "0a" * 32,
            audio=None,
            delisted=False,
        ),
    ),
    (BEHAVIOR, Behavior(type="click", event_id="e1", product_id="p1", event_time=LONG_AGO)),
    (
        BEHAVIOR,
        Behavior(
            type="return",
            event_id="e2",
            product_id="p1",
            event_time=NOW + LIMITS.future_ms,
            user_id="é" * 64,
            session_id="s",
            result_set_id="r",
            position=0,
            quantity=3,
            price=425,
        ),
    ),
    (BEHAVIOR, Heartbeat(event_time=LONG_AGO)),
    (
        RESULT_SETS,
        ResultSet(
            result_set_id="r1",
            event_time=LONG_AGO,
            kind="search",
            candidates=[("p1", 1.5), ("p2", -0.5)],
            query="white",
            context={"page": 1},
            user_id="u",
            expires_at=NOW,
        ),
    ),
    (
        MODELS,
        Bundle(
            bundle="main",
            version=3,
            models=MODEL_VERSIONS,
            input_hash=input_hash(),
            price_weight=0.5,
            metrics={"ndcg": 0.4},
        ),
    ),
]


@pytest.mark.parametrize(("topic", "record"), RECORDS, ids=lambda value: type(value).__name__)
def test_a_good_record_comes_out_as_it_went_in(topic: str, record: Record) -> None:
    assert one(topic, record) == Decoded(records=[(0, record)], count=1)


@pytest.mark.parametrize("message", bad_messages(PARTITIONS), ids=lambda message: message.name)
def test_bad_messages_are_rejected_with_their_reason(message: BadMessage) -> None:
    decoded = read(message.topic, message.key, message.value, partition=message.partition or 0)
    assert [(r.place, r.reason) for r in decoded.rejected] == [(message.place, message.reason)]
    assert len(decoded.records) == message.good
    assert decoded.count == message.good + 1
    assert decoded.rejected[0].text.count(": ") >= 1


def test_there_are_enough_kinds_of_bad_messages_and_every_reason_is_among_them() -> None:
    messages = bad_messages(PARTITIONS)
    assert len({message.name for message in messages}) == len(messages) >= 40
    assert {message.reason for message in messages} == set(REASONS)


#: what msgspec says of our types, in every form it has for them, and what we make of it
EXPLAINED: list[tuple[str, dict[str, Any], Reason, str]] = [
    (CATALOG, {"type": "product", "v": 1}, "missing_field", "record: object missing required field `product_id`"),
    (CATALOG, product(price="x"), "wrong_type", "price: expected `int | null`, got `str`"),
    (CATALOG, product(price=-1), "out_of_range", "price: expected `int` >= 0"),
    (CATALOG, product(price=2**60), "out_of_range", "price: expected `int` <= 9007199254740992"),
    (CATALOG, product(price=2**64 - 1), "out_of_range", "price: expected `int` <= 9007199254740992"),
    (CATALOG, product(product_id=""), "out_of_range", "product_id: expected `str` of length >= 1"),
    (CATALOG, product(title="x" * 10_001), "out_of_range", "title: expected `str` of length <= 10000"),
    (CATALOG, product(currency="gb"), "out_of_range", "currency: expected `str` matching regex '^[A-Z]{3}$'"),
    (CATALOG, product(category={}), "wrong_type", "category: expected `array | null`, got `object`"),
    (CATALOG, product(category=["a"] * 33), "out_of_range", "category: expected `array` of length <= 32"),
    (CATALOG, product(category=["a", 1]), "wrong_type", "category[1]: expected `str`, got `int`"),
    (
        CATALOG,
        product(attributes={"a": []}),
        "wrong_type",
        "attributes[...]: expected `bool | int | float | str | null`, got `array`",
    ),
    (
        CATALOG,
        product(attributes={str(i): i for i in range(65)}),
        "out_of_range",
        "attributes: expected `object` of length <= 64",
    ),
    (CATALOG, product(attributes={b"a": 1}), "wrong_type", "key in attributes: expected `str`, got `bytes`"),
    (CATALOG, product(delisted="no"), "wrong_type", "delisted: expected `bool | null`, got `str`"),
    (CATALOG, {**product(), b"a": 1}, "wrong_type", "key in record: expected `str`"),  # type: ignore[dict-item]
    (CATALOG, product(event_time=-1), "bad_time", "event_time: expected `int` >= 0"),
    (CATALOG, product(event_time=1.5), "bad_time", "event_time: expected `int`, got `float`"),
    (RESULT_SETS, result_set(kind="x"), "out_of_range", "kind: invalid enum value 'x'"),
    (RESULT_SETS, result_set(kind=1), "wrong_type", "kind: expected `str`, got `int`"),
    (RESULT_SETS, result_set(candidates=[]), "out_of_range", "candidates: expected `array` of length >= 1"),
    (
        RESULT_SETS,
        result_set(candidates=[["a"]]),
        "wrong_type",
        "candidates[0]: expected `array` of length 2, got 1",
    ),
    (RESULT_SETS, result_set(candidates=[["a", "b"]]), "wrong_type", "candidates[0][1]: expected `float`, got `str`"),
    (BEHAVIOR, behavior(quantity=0), "out_of_range", "quantity: expected `int` >= 1"),
    (MODELS, bundle(models={"a": 1.5}), "wrong_type", "models[...]: expected `int`, got `float`"),
]


@pytest.mark.parametrize(("topic", "record", "reason", "text"), EXPLAINED, ids=lambda value: str(value)[:60])
def test_every_form_of_type_error_has_its_reason_and_names_the_field(
    topic: str, record: dict[str, Any], reason: Reason, text: str
) -> None:
    decoded = read(topic, None, pack([record]))
    assert decoded.rejected == [Rejected(0, reason, text)]


def test_the_good_neighbours_of_bad_records_count() -> None:
    good = [behavior(event_id=f"e{i}") for i in range(3)]
    decoded = read(BEHAVIOR, None, pack([good[0], behavior(quantity=0), good[1], 7, good[2]]))
    assert [place for place, _ in decoded.records] == [0, 2, 4]
    assert [(r.place, r.reason) for r in decoded.rejected] == [(1, "out_of_range"), (3, "not_a_map")]
    assert decoded.count == 5


def test_a_bulk_mixes_events_and_heartbeats() -> None:
    decoded = read(BEHAVIOR, None, pack([behavior(), heartbeat()]))
    assert [type(record) for _, record in decoded.records] == [Behavior, Heartbeat]


def test_an_empty_bulk_is_nothing() -> None:
    assert read(CATALOG, None, pack([])) == Decoded()


def test_each_result_set_of_a_bulk_must_be_in_its_own_partition() -> None:
    ids = [f"set-{i}" for i in range(20)]
    decoded = read(RESULT_SETS, None, pack([result_set(result_set_id=i) for i in ids]), partition=2)
    assert [place for place, _ in decoded.records] == [
        p for p, i in enumerate(ids) if partition_for(i, PARTITIONS) == 2
    ]
    assert {r.reason for r in decoded.rejected} == {"wrong_partition"}


def test_a_null_delists_at_the_time_of_the_message() -> None:
    assert read(CATALOG, b"p1", None).records == [(0, delisting("p1", NOW))]


def test_a_null_without_a_key_delists_nothing() -> None:
    assert read(CATALOG, None, None).rejected[0].reason == "key_mismatch"


def test_a_null_without_a_timestamp_delists_nothing() -> None:
    assert read(CATALOG, b"p1", None, kafka_time=-1).rejected[0].reason == "bad_time"


def test_a_null_result_set_is_left_to_the_caller() -> None:
    assert read(RESULT_SETS, b"r1", None) == Decoded()


def test_unknown_fields_are_ignored_and_counted() -> None:
    decoded = read(CATALOG, None, pack([product(colour="white", fit={"a": [1]}), product(size="M")]))
    assert decoded.unknown_fields == 3
    assert [record for _, record in decoded.records] == [Product(product_id="bad", event_time=LONG_AGO)] * 2


def test_from_the_future_is_judged_against_the_timestamp_of_the_message() -> None:
    edge = pack(product(event_time=NOW + LIMITS.future_ms))
    assert read(CATALOG, b"bad", edge).rejected == []
    assert read(CATALOG, b"bad", edge, kafka_time=NOW - 1).rejected[0].reason == "from_the_future"


@pytest.mark.parametrize(("levels", "rejected"), [(7, 0), (8, 1)])
def test_depth_is_that_of_the_whole_message(levels: int, rejected: int) -> None:
    assert len(read(CATALOG, b"bad", pack(product(junk=nested(levels)))).rejected) == rejected


def test_too_deep_rejects_a_bulk_whatever_else_is_wrong_with_it() -> None:
    value = b"\x92" + b"\x81\xa4type\xa2\xff\xfe" + pack(product(junk=nested(20)))
    assert [(r.place, r.reason) for r in read(CATALOG, None, value).rejected] == [(WHOLE, "too_deep")]


def test_limits_are_settings() -> None:
    small = Limits(message_bytes=10_000, records=2, candidates=1, depth=4, future_ms=0)
    assert read(CATALOG, b"bad", b"x" * 10_001, limits=small).rejected[0].reason == "too_large"
    assert read(CATALOG, None, pack([product()] * 3), limits=small).rejected[0].reason == "too_many_records"
    owner = partition_for("bad", PARTITIONS)
    bad = read(RESULT_SETS, b"bad", pack(result_set()), limits=small, partition=owner)
    assert bad.rejected[0].reason == "too_many_candidates"
    assert (
        read(CATALOG, b"bad", pack(product(event_time=NOW + 1)), limits=small).rejected[0].reason == "from_the_future"
    )


def test_a_list_that_lies_about_its_length_costs_no_memory() -> None:
    assert read(CATALOG, None, b"\xdd\x7f\xff\xff\xff").rejected[0].reason == "too_many_records"
    assert read(CATALOG, None, b"\xdc\x27\x10" + b"\xdc\xff\xff" * 500).rejected[0].reason == "not_msgpack"


@pytest.mark.parametrize(
    ("address", "allowed"),
    [
        ("https://shop.test/a.png", True),
        ("http://shop.test/a.png", True),
        ("https://SHOP.test/a.png", True),
        ("https://shop.test:8443/a.png", False),
        ("https://cdn.test:8443/a.png", True),
        ("https://cdn.test/a.png", False),
        ("https://shop.test.elsewhere.test/a.png", False),
        ("https://shop.test@elsewhere.test/a.png", False),
        ("https://elsewhere.test/?shop.test", False),
        ("ftp://shop.test/a.png", False),
        ("https://shop.test:port/a.png", False),
        ("https://[shop.test/a.png", False),
        ("https://", False),
    ],
)
def test_an_address_is_allowed_by_its_host(address: str, allowed: bool) -> None:
    assert is_allowed(address, ("shop.test", "cdn.test:8443")) is allowed
    decoded = read(CATALOG, b"bad", pack(product(image=address)), hosts=("shop.test", "cdn.test:8443"))
    assert [r.reason for r in decoded.rejected] == ([] if allowed else ["media_not_allowed"])


@pytest.mark.parametrize(
    ("name", "media"),
    [
        ("image", PNG),
        ("image", b"\xff\xd8\xff\xe0 JFIF"),
        ("image", b"RIFF\x00\x00\x00\x00WEBPVP8 "),
        ("video", b"\x00\x00\x00\x18ftypmp42"),
        ("video", b"GIF89a"),
        ("audio", b"RIFF\x00\x00\x00\x00WAVEfmt "),
        ("audio", b"ID3\x04"),
    ],
)
def test_media_of_a_known_format_are_taken(name: str, media: bytes) -> None:
    [(_, record)] = read(CATALOG, b"bad", pack(product(**{name: media}))).records
    assert getattr(record, name) == media


def test_a_bulk_splits_into_its_records() -> None:
    records = [Product(product_id=str(i), event_time=i) for i in range(3)]
    assert split_bulk(encode_bulk(records)) == [encode_record(record) for record in records]
    assert split_bulk(encode_record(records[0])) is None
    assert split_bulk(b"\x92\x01") is None


TOPICS = st.sampled_from((CATALOG, BEHAVIOR, RESULT_SETS, MODELS))
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=20,
)
NAMES = sorted({name for struct in (Product, Behavior, ResultSet, Bundle) for name in struct.__struct_fields__})
WHOLES = (product(), behavior(), heartbeat(), result_set(), bundle())
ALMOST = st.tuples(
    st.sampled_from(WHOLES),
    st.dictionaries(st.sampled_from(NAMES), ANYTHING, max_size=2),
    st.sets(st.sampled_from(NAMES), max_size=1),
).map(lambda parts: {k: v for k, v in {**parts[0], **parts[1]}.items() if k not in parts[2]})


def check_any(topic: str, key: bytes | None, value: bytes) -> None:
    decoded = read(topic, key, value)
    assert decoded.count == len(decoded.records) + len(decoded.rejected)
    assert all(rejected.reason in REASONS for rejected in decoded.rejected)
    assert decoded == read(topic, key, value)


@given(TOPICS, st.none() | st.binary(max_size=10), st.binary(max_size=300))
def test_no_bytes_raise(topic: str, key: bytes | None, value: bytes) -> None:
    check_any(topic, key, value)


@given(TOPICS, st.none() | st.just(b"bad"), ALMOST | st.lists(ALMOST | ANYTHING, max_size=4) | ANYTHING)
@settings(max_examples=300)
def test_no_almost_good_message_raises(topic: str, key: bytes | None, content: object) -> None:
    check_any(topic, key, pack(content))


@given(TOPICS, st.sampled_from(WHOLES), st.integers(0, 200), st.integers(0, 255))
@settings(max_examples=300)
def test_no_flipped_byte_raises(topic: str, record: dict[str, Any], place: int, byte: int) -> None:
    packed = bytearray(msgpack.packb([record, record]) or b"")
    packed[place % len(packed)] = byte
    check_any(topic, None, bytes(packed))


PAGE = (Path(__file__).parents[1] / "docs" / "reference" / "records.md").read_text()


@pytest.mark.parametrize(
    ("heading", "struct"),
    [
        ("`catalog`: a patch of a product", Product),
        ("`behavior`: what a shopper did", Behavior),
        ("`behavior`: a heartbeat, the log's clock", Heartbeat),
        ("`result-sets`: a live result set", ResultSet),
        ("`models`: the model bundle in force", Bundle),
    ],
)
def test_every_field_is_documented_with_whether_it_may_be_left_out(heading: str, struct: type[Record]) -> None:
    _, _, section = PAGE.partition(f"## {heading}\n")
    table = section.partition("\n## ")[0]
    documented = {name: bool(mark) for name, mark in re.findall(r"^\| `(\w+)` (\? )?\|", table, re.MULTILINE)}
    defaults = len(struct.__struct_defaults__)
    needed = {"type", "v", *struct.__struct_fields__[: len(struct.__struct_fields__) - defaults]}
    fields = {name: name not in needed for name in struct.__struct_fields__}
    assert documented == fields


def test_every_reason_is_documented() -> None:
    table = PAGE.partition("| reason |")[2]
    assert tuple(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == REASONS


# --- the usual, in one step ----------------------------------------------------------------------------------------

ANY = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([-(2**63), -1, 2**64 - 1]),
    st.floats(),
    st.text(max_size=3),
    st.binary(max_size=3),
    st.lists(st.integers(0, 9), max_size=2),
    st.dictionaries(st.text(max_size=2), st.integers(0, 9), max_size=2),
)
WORDS = st.sampled_from(["p1", "é", "价" * 50, "x" * 128, "x" * 129, ""])
USUAL: dict[str, st.SearchStrategy[Any]] = {
    "type": st.sampled_from(["click", "purchase", "product", "heartbeat", "sale"]),
    "v": st.sampled_from([1, 1, 1, 2, 1.0, True]),
    "event_id": WORDS,
    "product_id": WORDS,
    "event_time": st.sampled_from([NOW, NOW + Limits().future_ms, NOW + Limits().future_ms + 1, -1, 1.5]),
    "user_id": st.one_of(st.none(), WORDS),
    "session_id": st.one_of(st.none(), WORDS),
    "result_set_id": st.one_of(st.none(), WORDS),
    "position": st.integers(-1, 5),
    "quantity": st.integers(0, 3),
    "price": st.one_of(st.none(), st.integers(-1, 2**54)),
    "title": st.one_of(st.none(), st.text(max_size=3)),
    "category": st.one_of(st.none(), st.lists(st.text(max_size=2), max_size=33)),
    "attributes": st.dictionaries(
        st.text(max_size=2), st.one_of(st.none(), st.floats(), st.text(max_size=2)), max_size=2
    ),
    "currency": st.sampled_from(["GBP", "gbp", "GBp", "GB1", "GB", "ÄÖÜ", "GB\n", "GBP\n", None]),
    "stock": st.integers(-1, 5),
    "image": st.one_of(st.none(), st.just(PNG), st.just("sha256:" + "0a" * 32)),
    "delisted": st.one_of(st.none(), st.booleans()),
}
OF_TOPIC = {
    BEHAVIOR: ("type", "v", "event_id", "product_id", "event_time"),
    CATALOG: ("type", "v", "product_id", "event_time"),
}


@st.composite
def raw_records(draw: st.DrawFn, topic: str) -> dict[str, object]:
    """A map that is a record of the topic, or nearly one."""
    names = [*OF_TOPIC[topic], *draw(st.lists(st.sampled_from(sorted(USUAL)), max_size=4))]
    found = {name: draw(USUAL[name]) for name in draw(st.permutations(names))}
    if draw(st.integers(0, 3)) == 0:
        found.pop(draw(st.sampled_from(sorted(found))))
    if draw(st.integers(0, 5)) == 0:
        found[draw(st.sampled_from([*sorted(USUAL), "colour"]))] = draw(ANY)
    return found


@given(st.sampled_from([BEHAVIOR, CATALOG]), st.data())
@settings(max_examples=400, deadline=None)
def test_what_is_read_in_one_step_is_what_the_long_way_makes_of_it(topic: str, data: st.DataObject) -> None:
    found = data.draw(st.one_of(raw_records(topic), st.lists(raw_records(topic), max_size=4)))
    value = msgpack.packb(found, use_bin_type=data.draw(st.booleans()))
    key = data.draw(st.sampled_from([None, b"p1", "é".encode(), b"x" * 128]))
    usual = decode_usual(topic, key, value, NOW, LIMITS)
    if usual is not None:
        # as text: what is not a number is not equal to itself
        assert repr(Decoded(plain(usual), count=len(usual))) == repr(read(topic, key, value))


def plain(usual: Sequence[tuple[int, Record]]) -> list[tuple[int, Record]]:
    """What was read in one step is of a type of its own, which is equal to no other."""
    return [
        (place, (Behavior if isinstance(record, Behavior) else Product)(**asdict(record))) for place, record in usual
    ]


@pytest.mark.parametrize("currency", ["gbp", "GBp", "GB1", "GB", "GBPX", "GBP\n", "ÄÖÜ", ""])
def test_what_is_no_currency_is_not_read_in_one_step(currency: str) -> None:
    value = msgpack.packb({"type": "product", "v": 1, "product_id": "p1", "event_time": NOW, "currency": currency})
    assert decode_usual(CATALOG, b"p1", value, NOW, LIMITS) is None
    assert [rejected.reason for rejected in read(CATALOG, b"p1", value).rejected] == ["out_of_range"]


@pytest.mark.parametrize(
    "record",
    [
        Behavior(type="purchase", event_id="e", product_id="p1", event_time=NOW, user_id="u", quantity=2, price=5),
        Product(product_id="p1", event_time=NOW, price=5, currency="GBP", title=None, category=["a"]),
    ],
    ids=lambda record: record.type,
)
def test_the_usual_is_read_in_one_step(record: Behavior | Product) -> None:
    topic = BEHAVIOR if isinstance(record, Behavior) else CATALOG
    for key, value, count in ((b"p1", encode_record(record), 1), (None, encode_bulk([record, record]), 2)):
        usual = decode_usual(topic, key, value, NOW, LIMITS)
        assert usual is not None
        assert plain(usual) == [(place, record) for place in range(count)]
