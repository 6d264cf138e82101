"""The oracle: hand-made logs with the rankings that follow, brute force, and every kind of difference planted once."""

import asyncio
import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kafka import KafkaProducer
from msgspec import structs
from PIL import Image
from pydantic import SecretStr

from feature_repo.events import Behavior, Bundle, Heartbeat, Product, ResultSet
from feature_repo.features import behavior_values, catalog_ints, catalog_strings, user_events, user_history, user_values
from feature_repo.row import pack_row, pack_stamps
from feature_repo.row_store import Marker, RowStore, RowWrite, Space, Stored, pack_stored
from feature_repo.views import (
    BEHAVIOR_COLUMNS,
    FAMILIARITY,
    HOUR_MS,
    MINUTE_MS,
    MODALITIES,
    NUMERIC_FIELDS,
    PRODUCT_BEHAVIOR,
    PRODUCT_CATALOG,
    SLOTS,
    USER_BEHAVIOR,
    View,
    input_hash,
)
from serving.requests import ContentVectors, Floats, ProductContent, ScoreRequest, Scores
from serving.users import PRIOR_PRODUCTS
from streams import topics
from streams.client import Connection, Publisher, Registrar
from streams.dead_letters import dead_letter
from streams.local.redis_server import RedisServer
from streams.local.tansu import TansuBroker
from streams.oracle import VerifyReport, expecting, verify
from streams.oracle.comparing import compare, compare_letters, compare_row, entities
from streams.oracle.expecting import Expectation, Expectations, Expected, Nothing
from streams.oracle.log import LogReader
from streams.oracle.replaying import Message, Place, Replay, Runs
from streams.records import (
    BEHAVIOR,
    CATALOG,
    CONTENT,
    DEAD_LETTER,
    MODELS,
    RANKINGS,
    RESULT_SETS,
    Ranking,
    Record,
    encode_bulk,
    encode_ranking,
    encode_record,
    partition_for,
    ranking_headers,
    record_key,
)
from streams.settings import Settings
from streams.validation import Rejected
from tests.bad_messages import bad_messages
from tests.parts import running

#: the begin of an hour, ms
T = 1_300_000_000_000 // HOUR_MS * HOUR_MS
LATER = T + 1000 * HOUR_MS
PARTITIONS = {CATALOG: 2, BEHAVIOR: 2, RESULT_SETS: 2, MODELS: 1}
TEXT, IMAGE = MODALITIES.index("text"), MODALITIES.index("image")
BUNDLE = Bundle(
    bundle="default",
    version=3,
    models={"product_encoder": 1, "query_encoder": 1, "ranker": 1},
    input_hash=input_hash(),
    price_weight=1.0,
)


@dataclass
class Log:
    """A log in memory, with the ends of its partitions. Kafka's time is LATER, so that nothing is from the future."""

    messages: list[Message] = field(default_factory=list)
    ends: dict[tuple[str, int], int] = field(default_factory=dict)

    def put(self, topic: str, partition: int, key: bytes | None, value: bytes | None, kafka_time: int = LATER) -> None:
        offset = self.ends.get((topic, partition), 0)
        self.ends[topic, partition] = offset + 1
        self.messages.append(Message(topic, partition, offset, kafka_time, key, value))

    def add(self, *records: Record, partition: int | None = None) -> "Log":
        """Each a message of its own, where its key belongs."""
        for record in records:
            topic = _topic(record)
            key = record_key(record)
            home = partition_for(key.decode(), PARTITIONS[topic]) if key is not None else 0
            self.put(topic, home if partition is None else partition, key, encode_record(record))
        return self

    def beat(self, time: int, *partitions: int) -> "Log":
        """A heartbeat for these partitions of `behavior`, for all by default."""
        for partition in partitions or range(PARTITIONS[BEHAVIOR]):
            self.add(Heartbeat(event_time=time), partition=partition)
        return self

    def close(self, result_set_id: str) -> "Log":
        home = partition_for(result_set_id, PARTITIONS[RESULT_SETS])
        self.put(RESULT_SETS, home, result_set_id.encode(), None)
        return self

    def replay(self, messages: Sequence[Message] | None = None) -> Replay:
        replay = Replay(PARTITIONS)
        for message in self.messages if messages is None else messages:
            replay.take(message)
        return replay


def _topic(record: Record) -> str:
    match record:
        case Product():
            return CATALOG
        case Behavior() | Heartbeat():
            return BEHAVIOR
        case ResultSet():
            return RESULT_SETS
        case Bundle():
            return MODELS


@dataclass
class Arithmetic:
    """A model to follow by hand: retrieval - price / 100 + sales_1h + picture / 10 + (query + user) * length of title.

    The vectors' first number counts: of a text its length / 10, of a picture 1.
    """

    encoded: list[str] = field(default_factory=list)

    async def encode_queries(self, texts: Sequence[str], version: int | None = None) -> Floats:
        return np.stack([_vector(len(text) / 10) for text in texts])

    async def encode_products(self, products: Sequence[ProductContent], version: int | None = None) -> ContentVectors:
        content = np.zeros((len(products), len(SLOTS), 32), np.float32)
        mask = np.zeros((len(products), len(MODALITIES)), np.float32)
        for row, product in enumerate(products):
            self.encoded.append(product.product_id)
            content[row, TEXT] = _vector(len(product.text) / 10)
            content[row, IMAGE] = _vector(float(product.image is not None))
            mask[row, [TEXT, IMAGE]] = bool(product.text), product.image is not None
        return ContentVectors(content, mask)

    async def score(self, request: ScoreRequest, version: int | None = None, *, explain: bool = False) -> Scores:
        asked = request.query[request.set_index, 0] + request.user[request.set_index, 0]
        sales = request.numeric[:, NUMERIC_FIELDS.index("sales_1h")]
        logit = request.retrieval - request.numeric[:, 0] / 100 + sales
        logit += request.content[:, IMAGE, 0] / 10 + asked * request.content[:, TEXT, 0]
        return Scores(logit.astype(np.float32))

    async def ready(self) -> bool:
        return True

    async def close(self) -> None:
        self.encoded.clear()


@dataclass
class Noting(Arithmetic):
    """Keeps the products that it encodes, and what it scores."""

    products: list[ProductContent] = field(default_factory=list)
    requests: list[ScoreRequest] = field(default_factory=list)

    async def encode_products(self, products: Sequence[ProductContent], version: int | None = None) -> ContentVectors:
        self.products += products
        return await super().encode_products(products, version)

    async def score(self, request: ScoreRequest, version: int | None = None, *, explain: bool = False) -> Scores:
        self.requests.append(request)
        return await super().score(request, version, explain=explain)


def _vector(first: float) -> Floats:
    return np.array([first] + 31 * [0.0], np.float32)


def nothing_there(reference: str) -> bytes | None:
    return None


def expectations(replay: Replay, media: Callable[[str], bytes | None] = nothing_there) -> dict[str, Expectation]:
    return asyncio.run(Expectations(Arithmetic(), media).of(replay))


def ranks(replay: Replay, result_set_id: str = "s") -> list[tuple[str, float]]:
    """(product, score) in order of rank."""
    expected = expectations(replay)[result_set_id]
    assert isinstance(expected, Expected)
    return list(zip(expected.product_ids, expected.scores.tolist(), strict=True))


def result_set(*candidates: str | tuple[str, float], name: str = "s", **fields: Any) -> ResultSet:
    pairs = [(one, 0.0) if isinstance(one, str) else one for one in candidates]
    return ResultSet(result_set_id=name, event_time=T, kind="search", candidates=pairs, **fields)


def priced(product_id: str, price: int | None, event_time: int = T, **fields: Any) -> Product:
    return Product(product_id=product_id, event_time=event_time, price=price, **fields)


def bought(event_id: str, product_id: str, event_time: int, quantity: int = 1, **fields: Any) -> Behavior:
    return Behavior(
        type="purchase", event_id=event_id, product_id=product_id, event_time=event_time, quantity=quantity, **fields
    )


def ready(*records: Record) -> Log:
    """A log with a bundle and a heartbeat at T everywhere."""
    return Log().add(BUNDLE).beat(T).add(*records)


# --- expectations --------------------------------------------------------------------------------------------------


def test_scores_come_from_retrieval_price_and_sales() -> None:
    log = ready(priced("a", 300), priced("b", 100), priced("c", 200), result_set("a", ("b", 0.5), "c"))
    assert ranks(log.replay()) == [("b", -0.5), ("c", -2.0), ("a", -3.0)]
    log.add(bought("1", "a", T, quantity=3))
    assert ranks(log.replay()) == [("a", 0.0), ("b", -0.5), ("c", -2.0)]


def test_the_newest_event_time_wins_a_field_and_an_older_patch_comes_too_late() -> None:
    log = ready(priced("a", 300, T + 5), priced("a", 100, T + 4), priced("a", 100, T + 5), result_set("a"))
    assert ranks(log.replay()) == [("a", -1.0)]


def test_a_cleared_price_is_unknown_and_so_is_an_unknown_product() -> None:
    log = ready(priced("a", 300), priced("a", None, T + 1), result_set("a", ("nobody", 1.0)))
    assert ranks(log.replay()) == [("nobody", 1.01), ("a", 0.01)]


def test_a_product_that_was_only_bought_has_sales_and_no_price() -> None:
    assert ranks(ready(bought("1", "a", T, 2), result_set("a")).replay()) == [("a", 2.01)]


def test_equal_scores_stand_in_order_of_product_id() -> None:
    assert [name for name, _ in ranks(ready(result_set("c", "a", "b")).replay())] == ["a", "b", "c"]


def test_sales_leave_the_window_when_the_heartbeat_of_their_partition_says_so() -> None:
    log = ready(priced("a", 0), bought("1", "a", T, 4), result_set("a"))
    home = partition_for("a", PARTITIONS[BEHAVIOR])
    assert ranks(log.beat(T + HOUR_MS - 1, home).replay()) == [("a", 4.0)]
    assert ranks(log.beat(T + HOUR_MS, 1 - home).replay()) == [("a", 4.0)]
    assert ranks(log.beat(T + HOUR_MS, home).replay()) == [("a", 0.0)]


def test_a_heartbeat_never_goes_back() -> None:
    log = ready(priced("a", 0), bought("1", "a", T, 4), result_set("a")).beat(T + HOUR_MS).beat(T + MINUTE_MS)
    assert ranks(log.replay()) == [("a", 0.0)]


def test_the_newest_event_moves_the_windows_where_no_heartbeat_came() -> None:
    log = ready(priced("a", 0), bought("1", "a", T, 4), bought("2", "a", T + HOUR_MS), result_set("a"))
    assert ranks(log.replay()) == [("a", 1.0)]


def test_a_late_event_counts_where_it_belongs() -> None:
    log = ready(priced("a", 0), bought("1", "a", T + 2 * HOUR_MS), bought("2", "a", T + HOUR_MS, 5))
    values = behavior_values(log.replay().behavior["a"].state, T + 2 * HOUR_MS)
    assert dict(zip(NUMERIC_FIELDS[BEHAVIOR_COLUMNS], values, strict=True))["sales_24h"] == 6
    assert ranks(log.add(result_set("a")).replay()) == [("a", 1.0)]


def test_a_return_takes_back_and_never_below_nothing() -> None:
    given_back = Behavior(type="return", event_id="r", product_id="a", event_time=T, quantity=2)
    assert ranks(ready(priced("a", 0), bought("1", "a", T, 3), given_back, result_set("a")).replay()) == [("a", 1.0)]
    assert ranks(ready(priced("a", 0), bought("1", "a", T, 1), given_back, result_set("a")).replay()) == [("a", 0.0)]


def test_what_a_publisher_sends_twice_counts_once_within_ten_minutes() -> None:
    log = ready(priced("a", 0), bought("1", "a", T), bought("1", "a", T), bought("2", "a", T), result_set("a"))
    replay = log.replay()
    assert ranks(replay) == [("a", 2.0)]
    assert (replay.tally.counted, replay.tally.doubled) == (2, 1)
    replay = log.add(bought("3", "a", T + 10 * MINUTE_MS + 10_000), bought("1", "a", T)).replay()
    assert ranks(replay) == [("a", 4.0)]
    assert (replay.tally.counted, replay.tally.doubled) == (4, 1)


def test_delisted_products_are_left_out_until_they_are_listed_again() -> None:
    log = ready(priced("a", 0), priced("b", 100), result_set("a", "b"))
    log.add(Product(product_id="a", event_time=T + 1, delisted=True))
    assert ranks(log.replay()) == [("b", -1.0)]
    log.add(Product(product_id="a", event_time=T + 2, delisted=False))
    assert ranks(log.replay()) == [("a", 0.0), ("b", -1.0)]


def test_a_null_delists_at_the_time_that_kafka_gave_it() -> None:
    log = ready(priced("a", 0), priced("b", 100), result_set("a", "b"))
    home = partition_for("a", PARTITIONS[CATALOG])
    log.put(CATALOG, home, b"a", None, T + 5)
    assert ranks(log.replay()) == [("b", -1.0)]
    log.add(Product(product_id="a", event_time=T + 4, delisted=False))
    assert ranks(log.replay()) == [("b", -1.0)]
    log.add(Product(product_id="a", event_time=T + 6, delisted=None))
    assert ranks(log.replay()) == [("a", 0.0), ("b", -1.0)]


def test_sold_out_products_stand_last_and_an_unknown_stock_is_stock() -> None:
    log = ready(priced("a", 0, stock=0), priced("b", 100, stock=0), priced("c", 300, stock=1), priced("d", 200))
    assert [name for name, _ in ranks(log.add(result_set("a", "b", "c", "d")).replay())] == ["d", "c", "a", "b"]


def test_titles_count_with_a_query_and_with_a_user_who_bought_long_titles() -> None:
    """A title of 10 is 1.0, one of 5 is 0.5; so is the query; the user bought the first."""
    log = ready(priced("a", 0, title="0123456789"), priced("b", 0, title="01234"))
    log.add(result_set("a", "b", query="01234"), result_set("a", "b", name="u", user_id="jo"))
    assert ranks(log.replay()) == [("a", 0.5), ("b", 0.25)]
    assert ranks(log.replay(), "u") == [("a", 0.0), ("b", 0.0)]
    log.add(bought("1", "a", T - 2 * HOUR_MS, user_id="jo")).beat(T)
    first = 1 / (1 + PRIOR_PRODUCTS)
    assert ranks(log.replay(), "u") == [("a", round(first, 5)), ("b", round(first / 2, 5))]
    log.add(bought("2", "nobody", T - 2 * HOUR_MS, user_id="jo"))
    assert ranks(log.replay(), "u") == [("a", round(first, 5)), ("b", round(first / 2, 5))]
    log.add(bought("3", "b", T - 2 * HOUR_MS, user_id="jo"))
    both = 1.5 / (2 + PRIOR_PRODUCTS)
    assert ranks(log.replay(), "u") == [("a", round(both, 5)), ("b", round(both / 2, 5))]


def test_rows_say_what_their_own_user_did_with_the_product() -> None:
    log = ready(priced("a", 0), priced("b", 0))
    log.add(result_set("a", "b"), result_set("a", "b", name="u", user_id="jo"))
    log.add(bought("1", "b", T - 2 * HOUR_MS, user_id="jo")).beat(T)
    log.add(bought("2", "elsewhere", T - 2 * HOUR_MS, user_id="jo"))
    scorer = Noting()
    asyncio.run(Expectations(scorer, nothing_there).of(log.replay()))
    (request,) = scorer.requests
    assert request.numeric[:, FAMILIARITY].tolist() == [0, 0, 0, 1]


def test_a_user_is_folded_in_order_of_arrival_whatever_the_order_of_reading() -> None:
    """The second "1" comes within ten minutes of the newest event that had come before it; read last, it would not."""
    log = Log()
    for kafka_time, partition, event in (
        (1, 0, bought("1", "a", T, user_id="jo")),
        (2, 0, bought("1", "a", T, user_id="jo")),
        (3, 1, bought("2", "b", T + HOUR_MS, user_id="jo")),
    ):
        log.put(BEHAVIOR, partition, event.product_id.encode(), encode_record(event), LATER + kafka_time)
    for messages in (log.messages, log.messages[::-1][:1] + log.messages[:2]):
        user = log.replay(messages).user("jo")
        assert [product for _, product, _, _ in user_events(user)] == ["a", "b"]
        assert user_values(user) == [0, 0, 0, 2]


def test_pictures_come_as_bytes_or_as_references_and_a_broken_one_is_none() -> None:
    drawn = BytesIO()
    Image.new("RGB", (8, 8), "white").save(drawn, "PNG")
    picture, broken = drawn.getvalue(), b"\x89PNG\r\n\x1a\n and no more"
    reference = "sha256:" + 64 * "0"
    log = ready(priced("a", 0, image=picture), priced("b", 0, image=broken), priced("c", 0, image=reference))
    replay = log.add(result_set("a", "b", "c")).replay()

    def best(media: Mapping[str, bytes]) -> list[float]:
        expected = expectations(replay, media.get)["s"]
        assert isinstance(expected, Expected)
        return [round(score, 5) for score in expected.scores.tolist()]

    assert best({}) == [0.1, 0.0, 0.0]
    assert best({reference: broken}) == [0.1, 0.0, 0.0]
    assert best({reference: picture}) == [0.1, 0.1, 0.0]


@pytest.mark.parametrize("name", ["image", "video", "audio"])
def test_of_a_broken_medium_only_itself_is_left_out(name: str) -> None:
    reference = "sha256:" + 64 * "0"
    record = Product(product_id="a", event_time=T, title="mug", attributes={"size": 3}, **{name: reference})  # type: ignore[arg-type]
    scorer = Noting()
    asyncio.run(Expectations(scorer, {reference: b"?"}.get).of(ready(record).add(result_set("a")).replay()))
    assert scorer.products == [ProductContent("a", title="mug", attributes={"size": 3})]


def test_contents_are_encoded_again_only_when_they_or_the_encoder_changed() -> None:
    log = ready(priced("a", 0, title="aa"), priced("b", 0, title="bb"), result_set("a", "b"))
    replay, scorer = log.replay(), Arithmetic()
    memory = Expectations(scorer, nothing_there)

    def encoded(*records: Record) -> list[str]:
        before = len(log.messages)
        log.add(*records)
        for message in log.messages[before:]:
            replay.take(message)
        scorer.encoded.clear()
        asyncio.run(memory.of(replay))
        return sorted(scorer.encoded)

    assert encoded() == ["a", "b"]
    assert encoded() == []
    assert encoded(priced("a", 5, T + 1)) == []
    assert encoded(Product(product_id="b", event_time=T + 1, title="other")) == ["b"]
    assert encoded(structs.replace(BUNDLE, models={**BUNDLE.models, "product_encoder": 2})) == ["a", "b"]


# --- sets that end -------------------------------------------------------------------------------------------------


def test_a_set_expires_when_the_last_partition_has_reached_its_end() -> None:
    log = ready(result_set("a", expires_at=T + MINUTE_MS)).beat(T + MINUTE_MS, 0).beat(T + MINUTE_MS - 1, 1)
    assert isinstance(expectations(log.replay())["s"], Expected)
    expected = expectations(log.beat(T + MINUTE_MS, 1).replay())["s"]
    assert expected == Nothing(f"expired at {T + MINUTE_MS}, the log's clock is {T + MINUTE_MS}")


def test_nothing_stands_before_every_partition_was_heard_or_before_there_is_a_bundle() -> None:
    log = Log().add(BUNDLE, result_set("a")).beat(T, 0)
    assert expectations(log.replay())["s"] == Nothing("not every partition of behavior has a heartbeat")
    assert expectations(Log().beat(T).add(result_set("a")).replay())["s"] == Nothing("no model bundle")


def test_a_closed_set_stays_closed_until_it_is_registered_again() -> None:
    log = ready(result_set("a")).close("s")
    assert expectations(log.replay()) == {"s": Nothing("closed")}
    assert ranks(log.add(result_set("b")).replay()) == [("b", 0.01)]


def test_a_null_where_the_set_has_no_place_closes_nothing() -> None:
    log = ready(result_set("a")).close("never registered")
    log.put(RESULT_SETS, 1 - partition_for("s", 2), b"s", None)
    log.put(RESULT_SETS, partition_for("s", 2), None, None)
    assert ranks(log.replay()) == [("a", 0.01)]
    assert expectations(log.replay()).keys() == {"s"}


def test_the_last_valid_registration_counts() -> None:
    log = ready(result_set("a"), result_set(("b", 1.0), ("c", 2.0)), result_set("a", "a"))
    assert ranks(log.replay()) == [("c", 2.01), ("b", 1.01)]
    assert list(log.replay().rejected.values()) == ["double_candidate"]


def test_the_last_valid_bundle_is_in_force() -> None:
    log = ready(result_set("a"), structs.replace(BUNDLE, version=4))
    log.put(MODELS, 0, b"default", b"\xc1")
    expected = expectations(log.replay())["s"]
    assert isinstance(expected, Expected)
    assert expected.model_version == "default/4"
    log.add(structs.replace(BUNDLE, input_hash="other"))
    assert expectations(log.replay())["s"] == expected
    assert list(log.replay().rejected.values()) == ["not_msgpack", "out_of_range"]


# --- the log -------------------------------------------------------------------------------------------------------


def test_every_record_of_behavior_is_counted_doubled_rejected_or_a_heartbeat() -> None:
    log = Log().beat(T)
    log.put(BEHAVIOR, 0, None, encode_bulk([bought("1", "a", T), bought("1", "a", T), bought("2", "a", LATER * 2)]))
    log.put(BEHAVIOR, 0, None, b"\xc1")
    log.put(BEHAVIOR, 1, b"wrong", encode_record(bought("3", "b", T)))
    replay = log.replay()
    tally = replay.tally
    assert (tally.counted, tally.doubled, tally.rejected, tally.heartbeats) == (1, 1, 3, 2)
    assert replay.rejected == {
        Place(BEHAVIOR, 0, 1, 2): "from_the_future",
        Place(BEHAVIOR, 0, 2, -1): "not_msgpack",
        Place(BEHAVIOR, 1, 1, 0): "key_mismatch",
    }
    assert replay.behavior.keys() == {"a"}


def test_bad_messages_are_all_rejected_and_their_good_neighbours_count() -> None:
    log = Log()
    for bad in bad_messages(2):
        log.put(bad.topic, bad.partition or 0, bad.key, bad.value)
    replay = log.replay()
    wanted = {bad.reason for bad in bad_messages(2)}
    assert set(replay.rejected.values()) == wanted
    assert "bad-neighbour" in replay.catalog | replay.behavior


def test_a_bulk_message_says_the_same_as_its_records_one_by_one() -> None:
    events = [bought(str(n), "a", T + n * MINUTE_MS, n + 1, user_id="jo") for n in range(5)]
    single = ready(*events, priced("a", 0), result_set("a", user_id="jo"))
    bulk = ready(priced("a", 0), result_set("a", user_id="jo"))
    bulk.put(BEHAVIOR, partition_for("a", 2), None, encode_bulk(events))
    assert ranks(single.replay()) == ranks(bulk.replay()) == [("a", 15.0)]


def test_the_order_in_which_partitions_are_read_makes_no_difference() -> None:
    rng = random.Random(1)
    log = ready(*(priced(f"p{n}", n * 10, title=f"title {n}") for n in range(20)))
    for number in range(300):
        product, user = f"p{rng.randrange(20)}", f"u{rng.randrange(3)}"
        event = bought(f"e{number}", product, T + rng.randrange(3 * HOUR_MS), user_id=user)
        for _ in range(rng.choice((1, 1, 2))):
            log.add(event)
            log.messages[-1] = log.messages[-1]._replace(kafka_time=LATER + number)
    log.add(*(result_set(*(f"p{n}" for n in range(i, 20)), name=f"s{i}", user_id=f"u{i}") for i in range(3)))
    by_partition = sorted(log.messages, key=lambda m: (m.partition, m.topic, m.offset))
    first, second = log.replay(), log.replay(by_partition)
    assert first.tally.doubled > 0
    for name in ("s0", "s1", "s2"):
        assert ranks(first, name) == ranks(second, name)
    assert [user_history(first.user(user)) for user in first.users] == [
        user_history(second.user(user)) for user in second.users
    ]


def test_sets_are_scored_the_same_in_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    log = ready(*(priced(f"p{n}", n * 7 % 11, title="t" * n) for n in range(9)))
    log.add(*(result_set(*(f"p{n}" for n in range(i, 9)), name=f"s{i}", query="q" * i) for i in range(5)))
    replay = log.replay()
    whole = {name: ranks(replay, name) for name in replay.registrations}
    monkeypatch.setattr(expecting, "SCORE_ROWS", 8)
    monkeypatch.setattr(expecting, "ENCODE_ROWS", 2)
    assert {name: ranks(replay, name) for name in replay.registrations} == whole


def test_windows_against_brute_force() -> None:
    """Counted from the list of events by the words of the contract: no buckets, no state."""
    rng = random.Random(7)
    kinds = ("impression", "click", "cart", "purchase", "return")
    for seed in range(30):
        events = [
            Behavior(
                type=rng.choice(kinds),  # type: ignore[arg-type]
                event_id=f"{seed}-{number}",
                product_id="a",
                event_time=T + rng.randrange(9 * 24) * HOUR_MS + rng.randrange(HOUR_MS),
                quantity=rng.randrange(1, 4),
            )
            for number in range(120)
        ]
        beat = T + rng.randrange(10 * 24 * HOUR_MS)
        replay = Log().add(*events).beat(beat).replay()
        as_of = max(beat, *(event.event_time for event in events))
        assert replay.as_of("a") == as_of
        values = behavior_values(replay.behavior["a"].state, as_of)
        got = dict(zip(NUMERIC_FIELDS[BEHAVIOR_COLUMNS], values, strict=True))
        assert got == pytest.approx(_counted(events, as_of), rel=0.005)


def _counted(events: Sequence[Behavior], as_of: int) -> dict[str, float]:
    def within(span_ms: int, bucket_ms: int) -> list[Behavior]:
        end = as_of // bucket_ms * bucket_ms + bucket_ms
        return [event for event in events if end - span_ms <= event.event_time < end]

    def pieces(some: Sequence[Behavior], kind: str) -> int:
        return sum(event.quantity for event in some if event.type == kind)

    def sales(some: Sequence[Behavior]) -> int:
        return max(0, pieces(some, "purchase") - pieces(some, "return"))

    def times(some: Sequence[Behavior], kind: str) -> int:
        return sum(event.type == kind for event in some)

    minutes, hour = (within(m * MINUTE_MS, MINUTE_MS) for m in (10, 60))
    day, week = (within(h * HOUR_MS, HOUR_MS) for h in (24, 168))
    return {
        "sales_10m": sales(minutes),
        "sales_1h": sales(hour),
        "sales_24h": sales(day),
        "sales_7d": sales(week),
        "orders_24h": times(day, "purchase"),
        "orders_7d": times(week, "purchase"),
        "returns_7d": pieces(week, "return"),
        "views_24h": times(day, "impression"),
        "clicks_1h": times(hour, "click"),
        "clicks_24h": times(day, "click"),
        "carts_24h": times(day, "cart"),
        "ctr_24h": (times(day, "click") + 1) / (times(day, "impression") + 20),
        "sales_total": sales(events),
        "orders_total": times(events, "purchase"),
    }


def test_runs_know_what_was_read() -> None:
    runs = Runs()
    assert 0 not in runs
    for offset in (3, 4, 5, 9, 12, 13):
        runs.add(offset)
    assert [offset for offset in range(16) if offset in runs] == [3, 4, 5, 9, 12, 13]


# --- comparison ----------------------------------------------------------------------------------------------------

WANTED = Expected(
    ("a", "b", "c", "d", "e"),
    np.array([3.0, 2.0, 2.0 - 1e-5, 5.0, 4.0]),
    np.array([False, False, False, True, True]),
    "default/3",
)


def ranking(*items: tuple[str, float], **fields: Any) -> Ranking:
    """What stands: `WANTED` by default."""
    chosen = items or tuple(zip(WANTED.product_ids, WANTED.scores.tolist(), strict=True))
    made = Ranking(
        result_set_id="s",
        version=7,
        product_ids=tuple(name for name, _ in chosen),
        scores=np.array([score for _, score in chosen], np.float32),
        previous_ranks=np.full(len(chosen), -1, np.int16),
        contributions=None,
        model_version="default/3",
        caused_by=None,
        feature_age_ms={},
        scored_at=1,
        published_at=2,
        degraded=False,
    )
    return replace(made, **fields)


def test_what_should_stand_is_equal() -> None:
    assert compare(WANTED, ranking()) == []
    assert compare(Nothing("closed"), None) == []


def test_scores_may_differ_by_the_tolerance_and_near_pairs_may_change_places() -> None:
    near = ranking(("a", 3.000015), ("c", 2.0), ("b", 1.99999), ("d", 5.0), ("e", 4.0))
    assert compare(WANTED, near) == []


@pytest.mark.parametrize(
    ("expected", "got", "difference"),
    [
        (WANTED, None, "no ranking stands"),
        (Nothing("closed"), ranking(), "a ranking stands, but nothing should: closed"),
        (WANTED, ranking(model_version="default/2"), "model: expected default/3, got default/2"),
        (WANTED, ranking(degraded=True), "degraded"),
        (
            WANTED,
            ranking(("a", 3.0), ("b", 2.0), ("d", 5.0), ("x", 4.0)),
            "products: missing c, e, unexpected x",
        ),
        (
            WANTED,
            ranking(("a", 3.0), ("b", 2.0), ("b", 2.0), ("c", 1.99999), ("d", 5.0), ("e", 4.0)),
            "products: 1 twice",
        ),
        (
            WANTED,
            ranking(("a", 3.00003), ("b", 2.0), ("c", 1.99999), ("d", 5.0), ("e", 4.0)),
            "score of a: expected 3.00000, got 3.00003",
        ),
        (
            WANTED,
            ranking(("a", float("nan")), ("b", 2.0), ("c", 1.99999), ("d", 5.0), ("e", 4.0)),
            "score of a: expected 3.00000, got nan",
        ),
        (
            WANTED,
            ranking(("d", 5.0), ("a", 3.0), ("b", 2.0), ("c", 1.99999), ("e", 4.0)),
            "d is sold out, but does not stand at the end",
        ),
        (
            WANTED,
            ranking(("a", 3.0), ("b", 2.0), ("c", 1.99999), ("e", 4.0), ("d", 5.0)),
            "order: e stands before d, by score 4.00000 and 5.00000",
        ),
        (
            WANTED,
            ranking(("b", 2.0), ("c", 1.99999), ("a", 3.0), ("d", 5.0), ("e", 4.0)),
            "order: c stands before a, by score 1.99999 and 3.00000",
        ),
        (
            WANTED,
            ranking(("a", 3.0), ("b", 1.99999), ("c", 2.0), ("d", 5.0), ("e", 4.0)),
            "not in the order of its own scores",
        ),
    ],
)
def test_every_kind_of_difference_is_found(expected: Expectation, got: Ranking | None, difference: str) -> None:
    assert difference in compare(expected, got)


# --- stored rows ---------------------------------------------------------------------------------------------------


@pytest.fixture
def shop() -> Replay:
    return ready(
        priced("a", 300, stock=2, title="A", category=["x", "y"], currency="GBP"),
        bought("1", "a", T, 3, user_id="jo"),
        result_set("a"),
    ).replay()


def row(replay: Replay, view: View, entity: str) -> dict[str, Any]:
    """The values of a stored row that is right."""
    match view.name:
        case "product_catalog":
            state = replay.catalog[entity]
            return {"ints": catalog_ints(state), "floats": [], "strings": catalog_strings(state)}
        case "product_behavior":
            floats = behavior_values(replay.behavior[entity].state, replay.as_of(entity))
            return {"ints": [], "floats": floats, "strings": []}
        case _:
            user = replay.user(entity)
            return {"ints": [], "floats": user_values(user), "strings": [user_history(user)]}


def blob(view: View, values: Mapping[str, Any]) -> bytes:
    return pack_row(view, as_of=T, event_time=T, kafka_time=T, stamps={0: 5}, **values)


def test_right_rows_are_equal(shop: Replay) -> None:
    wanted = entities(shop)
    assert wanted == {PRODUCT_CATALOG: ["a"], PRODUCT_BEHAVIOR: ["a"], USER_BEHAVIOR: ["jo"]}
    for view, names in wanted.items():
        for name in names:
            assert compare_row(shop, view, name, blob(view, row(shop, view, name))) == []


@pytest.mark.parametrize(
    ("view", "entity", "kind", "column", "value", "difference"),
    [
        (PRODUCT_CATALOG, "a", "ints", 0, 299, "price: expected 300, got 299"),
        (PRODUCT_CATALOG, "a", "strings", 0, "B", "title: expected 'A', got 'B'"),
        (PRODUCT_BEHAVIOR, "a", "floats", 12, 2.0, "sales_total: expected 3.0, got 2.0"),
        (PRODUCT_BEHAVIOR, "a", "floats", 0, 0.0, "sales_10m: expected 3.0, got 0.0"),
        (USER_BEHAVIOR, "jo", "floats", 3, 2.0, "orders_total: expected 1.0, got 2.0"),
        (USER_BEHAVIOR, "jo", "strings", 0, b"\x90", None),
    ],
)
def test_a_wrong_row_is_found(
    shop: Replay, view: View, entity: str, kind: str, column: int, value: object, difference: str | None
) -> None:
    values = row(shop, view, entity)
    values[kind][column] = value
    found = compare_row(shop, view, entity, blob(view, values))
    assert len(found) == 1
    assert difference is None or found == [difference]


def test_a_missing_row_and_one_of_another_format_are_found(shop: Replay) -> None:
    assert compare_row(shop, PRODUCT_CATALOG, "a", None) == ["no such row"]
    other = b"\xff\xff" + blob(PRODUCT_CATALOG, row(shop, PRODUCT_CATALOG, "a"))[2:]
    assert compare_row(shop, PRODUCT_CATALOG, "a", other) == [
        "row of view product_catalog has format 65535, expected 1"
    ]


# --- dead letters --------------------------------------------------------------------------------------------------


def test_dead_letters_are_there_once_or_more_and_nothing_else_is() -> None:
    log = Log().beat(T)
    log.put(BEHAVIOR, 0, None, b"\xc1")
    log.put(MODELS, 0, b"default", b"\xc1")
    replay = log.replay()
    bad = Place(BEHAVIOR, 0, 1, -1)
    assert compare_letters(replay, {bad: {"not_msgpack"}}) == []
    assert compare_letters(replay, {}) == ["behavior[0] offset 1: expected not_msgpack, no dead letter"]
    assert compare_letters(replay, {bad: {"not_msgpack", "too_deep"}}) == [
        "behavior[0] offset 1: expected not_msgpack, got too_deep"
    ]
    good = Place(BEHAVIOR, 0, 0, 0)
    assert compare_letters(replay, {bad: {"not_msgpack"}, good: {"bad_time"}}) == [
        "behavior[0] offset 0, record 0: expected no dead letter, got bad_time"
    ]
    allowed = (
        (Place(CONTENT, 1, 5, -1), "bad_media"),  # a broken picture
        (Place(MODELS, 0, 0, -1), "not_msgpack"),  # may be told of
        (Place(BEHAVIOR, 0, 2, -1), "bad_time"),  # came after what was read
        (Place(RESULT_SETS, 0, 0, -1), "bad_time"),  # compacted away
    )
    for place, reason in allowed:
        assert compare_letters(replay, {bad: {"not_msgpack"}, place: {reason}}) == []


# --- report --------------------------------------------------------------------------------------------------------


def report(**fields: Any) -> VerifyReport:
    figures: dict[str, Any] = {
        "result_sets": 2,
        "live": 1,
        "equal": 2,
        "differences": (),
        "events_counted": 5,
        "events_doubled": 2,
        "events_rejected": 1,
        "rows_compared": 3,
        "rows_equal": 3,
        "row_differences": (),
        "dead_letters_expected": 1,
        "dead_letters_found": 1,
        "dead_letter_differences": (),
        "behind": (),
        "cut": (),
        "seconds": 0.5,
        "expected": {"s": WANTED, "gone": Nothing("closed")},
        "got": {"s": ranking()},
    }
    return VerifyReport(**{**figures, **fields})


def test_a_report_in_one_line_in_many_and_for_programs() -> None:
    assert report().ok
    assert report().line == "verify: 2 of 2 result sets equal to the oracle"
    assert report().lines[:4] == [
        "verify: 2 of 2 result sets equal to the oracle",
        "events: 8 = 5 counted + 2 doubled + 1 rejected",
        "stored rows: 3 of 3 equal",
        "dead letters: 1 of 1 there",
    ]
    told = json.loads(json.dumps(report(cut=("catalog[0] begins at 5",)).to_json()))
    assert (told["ok"], told["result_sets"], told["equal"], told["cut"]) == (True, 2, 2, ["catalog[0] begins at 5"])


def test_the_reference_names_every_figure_of_a_report() -> None:
    reference = (Path(__file__).parents[1] / "docs/reference/oracle.md").read_text(encoding="utf-8")
    assert [name for name in report().to_json() if f"`{name}`" not in reference] == []


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"differences": (("s", "degraded"),)}, "s: degraded"),
        ({"row_differences": (("user_behavior/jo", "no such row"),)}, "row user_behavior/jo: no such row"),
        ({"dead_letter_differences": ("catalog[0] offset 1: got",)}, "dead letter of catalog[0] offset 1: got"),
        ({"behind": ("content[0]: the store holds 0 of 4",)}, "behind: content[0]: the store holds 0 of 4"),
    ],
)
def test_any_difference_spoils_a_report_and_is_told(fields: dict[str, Any], line: str) -> None:
    assert not report(**fields).ok
    assert report(**fields).lines[-1] == line


def test_a_long_list_of_differences_is_cut_for_humans() -> None:
    many = report(differences=tuple((f"s{n}", "degraded") for n in range(50)))
    assert many.lines[-1] == "and 30 more like this"
    assert len(many.to_json()["differences"]) == 50


def test_explaining_a_set_shows_both_orders() -> None:
    told = report(got={"s": ranking(("b", 9.0), ("a", 3.0))}, differences=(("s", "products: missing c"),)).explain("s")
    assert told.splitlines()[:2] == ["s: products: missing c", "got version 7 of default/3"]
    assert told.splitlines()[2].split() == ["1", "a", "3.00000", "b", "9.00000"]
    assert told.splitlines()[4].split() == ["3", "c", "1.99999", "-"]
    assert report().explain("gone") == "gone: equal\nexpected nothing: closed"
    with pytest.raises(KeyError):
        report().explain("unknown")


# --- what it does not share ----------------------------------------------------------------------------------------


def test_the_oracle_shares_nothing_with_the_engine_and_waits_for_torch() -> None:
    code = "import sys, streams.oracle; print(*sorted(sys.modules))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    loaded = set(told.split())
    engine = {
        *("agents", "app", "candidate_rows", "content_side", "emitting", "folding", "minute", "owning", "producing"),
        *("product_side", "ranking_side", "reading", "reranking", "result_sets", "transport", "users", "workers"),
        "writing",
    }
    assert not loaded & {f"streams.{name}" for name in engine}
    assert not loaded & {"torch", "faust", "feast", "aiokafka"}


# --- on the real broker, store and model ---------------------------------------------------------------------------

CANDIDATES = [("mug", 1.0), ("shirt", 0.5), ("unknown", 0.25)]


@pytest.fixture
def settings(tmp_path: Path, redis_server: RedisServer) -> Iterator[Settings]:
    """A broker of its own with topics and a small shop's history, some of it bad."""
    with running(TansuBroker(tmp_path)) as broker:
        found = Settings(
            kafka=broker.address,
            kafka_kind="tansu",
            redis=SecretStr(f"redis://{redis_server.address}/0"),
            media=f"file://{tmp_path}/media",
            partitions=2,
        )
        topics.create(found)
        connection = Connection.from_settings(found)
        with Publisher(connection) as publisher, Registrar(connection) as registrar:
            publisher.publish(_committed_bundle())
            publisher.publish(priced("mug", 300, title="white mug", stock=3))
            publisher.publish(priced("shirt", 900, title="white shirt", stock=0))
            publisher.publish_many([bought(f"e{n}", "mug", T + n, user_id="jo") for n in range(9)])
            publisher.publish(bought("e0", "mug", T))
            publisher.heartbeat(T + MINUTE_MS)
            for name in ("s0", "s1", "s2"):
                user_id = "jo" if name == "s1" else None
                registrar.register(result_set(*CANDIDATES, name=name, query="white", user_id=user_id))
            registrar.unregister("s2")
        produce(found, BEHAVIOR, 0, None, b"\xc1")
        yield found


def _committed_bundle() -> Bundle:
    from serving.model.bundle import default_bundle

    return default_bundle()


def produce(
    settings: Settings, topic: str, partition: int, key: bytes | None, value: bytes | None, headers: Any = ()
) -> int:
    """Its offset."""
    producer = KafkaProducer(bootstrap_servers=settings.kafka, enable_idempotence=False)
    try:
        sent = producer.send(topic, key=key, value=value, partition=partition, headers=list(headers)).get(10)
        offset: int = sent.offset
        return offset
    finally:
        producer.close()


class Understudy:
    """Does what the engine should have done by now: rows, markers, rankings, dead letters, from the whole log."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.ids = topics.check(settings)

    def play(self) -> None:
        replay, ends = self._read()
        asyncio.run(self._store(replay, ends))
        for name, expected in self._expected(replay).items():
            self.publish(name, expected)
        bad = next(place for place in replay.rejected if place.topic == BEHAVIOR)
        self.bury(bad, "not_msgpack")

    def _read(self) -> tuple[Replay, dict[tuple[str, int], int]]:
        inputs = {name: self.ids.partitions[name] for name in (CATALOG, BEHAVIOR, RESULT_SETS, MODELS)}
        replay = Replay(inputs)
        with LogReader(Connection.from_settings(self.settings), inputs) as log:
            for fetched in log.news():
                replay.take(fetched.message)
            return replay, log.positions

    def _expected(self, replay: Replay) -> dict[str, Expectation]:
        from serving.model.inprocess import InProcessScorer

        return asyncio.run(Expectations(InProcessScorer(), nothing_there).of(replay))

    def publish(self, name: str, expected: Expectation, version: int = 7, **fields: Any) -> None:
        value = None
        if isinstance(expected, Expected):
            items = zip(expected.product_ids, expected.scores.tolist(), strict=True)
            standing = {"result_set_id": name, "version": version, "model_version": expected.model_version, **fields}
            value = encode_ranking(ranking(*items, **standing))
        home = partition_for(name, self.ids.partitions[RANKINGS])
        produce(self.settings, RANKINGS, home, name.encode(), value, ranking_headers(b"understudy", version))

    def bury(self, place: Place, reason: str) -> None:
        rejected = Rejected(place.place, reason, "")  # type: ignore[arg-type]
        key, value, headers = dead_letter(place.topic, place.partition, place.offset, None, b"\xc1", rejected)
        produce(self.settings, DEAD_LETTER, 0, key, value, headers)

    def space(self, view: View) -> Space:
        return Space(self.ids.cluster, self.ids.topics[view.topic], view.name)

    async def _store(self, replay: Replay, ends: Mapping[tuple[str, int], int]) -> None:
        store = RowStore(self.settings.redis.get_secret_value())
        for view, names in entities(replay).items():
            for name in names:
                await self.write(store, view, name, row(replay, view, name))
        for view in (PRODUCT_CATALOG, PRODUCT_BEHAVIOR):
            for partition in range(self.ids.partitions[view.topic]):
                marker = Marker(ends[view.topic, partition], T).encode()
                flushed = await store.flush(self.space(view), partition, b"", marker, [], None)
                assert flushed.status == "ok"
        await store.close()

    async def write(self, store: RowStore, view: View, name: str, values: Mapping[str, Any]) -> None:
        stored = await store.load(self.space(view), 0, [name])
        read = b"" if stored.rows[0] is None else _packed_stamps(stored.rows[0])
        write = RowWrite(name, read, blob(view, values), pack_stored(0, pack_stamps({0: 5}), T, T, b""), None)
        flushed = await store.flush(self.space(view), 0, stored.marker, b"", [write], None)
        assert flushed.status == "ok"


def _packed_stamps(stored: Stored) -> bytes:
    return pack_stamps(stored.stamps)


@pytest.mark.parts
def test_an_engine_that_does_nothing_is_behind(settings: Settings) -> None:
    found = verify(settings, timeout_s=0.5)
    assert not found.ok
    assert found.line == "verify: 1 of 3 result sets equal to the oracle"
    assert {line.partition(":")[0].partition("[")[0] for line in found.behind} == {CATALOG, BEHAVIOR}
    assert found.differences == (("s0", "no ranking stands"), ("s1", "no ranking stands"))
    assert (found.events_counted, found.events_doubled, found.events_rejected) == (9, 1, 1)


@pytest.mark.parts
def test_waiting_ends_when_the_engine_has_done_its_part(settings: Settings) -> None:
    """The engine begins when the oracle has first looked for its markers."""
    understudy = Understudy(settings)
    stages: list[str] = []

    def progress(stage: str, done: int, total: int) -> None:
        if not stages:
            understudy.play()
        stages.append(stage)

    found = verify(settings, timeout_s=30, progress=progress)
    assert found.ok, found.lines
    assert found.line == "verify: 3 of 3 result sets equal to the oracle"
    assert (found.live, found.rows_compared, found.rows_equal) == (2, 4, 4)
    assert (found.dead_letters_expected, found.dead_letters_found) == (1, 1)
    assert "result sets equal" in stages
    wanted = found.expected["s0"]
    assert isinstance(wanted, Expected)
    assert wanted.product_ids[-1] == "shirt"


@pytest.mark.parts
def test_what_is_planted_on_the_real_parts_is_found(settings: Settings) -> None:
    understudy = Understudy(settings)
    understudy.play()
    right = verify(settings, timeout_s=5)
    assert right.ok, right.lines

    understudy.publish("s0", right.expected["s0"], version=6)
    understudy.publish("s2", right.expected["s0"])
    understudy.publish("never", right.expected["s0"])
    understudy.publish("s1", right.expected["s1"], degraded=True)
    understudy.bury(Place(CATALOG, partition_for("mug", 2), 0, 0), "bad_time")

    async def spoil() -> None:
        store = RowStore(settings.redis.get_secret_value())
        values = {"ints": [1, 300, 3, 0], "floats": [], "strings": ["white mug", "", "", ""]}
        await understudy.write(store, PRODUCT_CATALOG, "mug", values)
        await store.close()

    asyncio.run(spoil())
    found = verify(settings, timeout_s=0.5)
    assert found.line == "verify: 0 of 4 result sets equal to the oracle"
    assert found.differences == (
        ("never", "a ranking stands, but nothing should: never registered"),
        ("s0", "version 6 came after 7: readers pass it over"),
        ("s1", "degraded"),
        ("s2", "a ranking stands, but nothing should: closed"),
    )
    assert found.row_differences == (("product_catalog/mug", "price: expected 300, got 1"),)
    assert len(found.dead_letter_differences) == 1

    for name in ("s0", "s1", "s2"):
        understudy.publish(name, right.expected[name], version=8)
    mended = verify(settings, timeout_s=0.5)
    assert [name for name, _ in mended.differences] == ["never"]


@pytest.mark.parts
def test_a_reader_goes_on_where_it_ended_and_tails_know_the_ends(settings: Settings) -> None:
    connection, partitions = Connection.from_settings(settings), {BEHAVIOR: 2}
    with LogReader(connection, partitions) as log, LogReader(connection, partitions, tail=True) as tail:
        read = [fetched.message for fetched in log.news()]
        assert list(log.news()) == []
        assert len(list(tail.news())) <= len(read)
        assert tail.positions == log.positions
        offset = produce(settings, BEHAVIOR, 1, None, encode_record(Heartbeat(event_time=T)))
        assert [(f.message.partition, f.message.offset) for f in log.news()] == [(1, offset)]
        assert [f.message.offset for f in tail.news()] == [offset]
    for partition in range(2):
        assert [m.offset for m in read if m.partition == partition] == list(range(log_end(read, partition)))


def log_end(read: Sequence[Message], partition: int) -> int:
    return max(message.offset for message in read if message.partition == partition) + 1
