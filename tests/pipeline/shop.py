"""A small shop for pipeline tests: products, shoppers and lists from a seed, published while things go wrong."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from feature_repo.events import Behavior, Product, ResultSet
from feature_repo.views import MINUTE_MS
from streams.client import Connection, Publisher, Registrar
from streams.settings import Settings

START_MS = 1_300_000_000_000
COLOURS = ("white", "black", "red", "blue", "green")
GARMENTS = ("shirt", "hoodie", "skirt", "jacket")


@dataclass
class Shop:
    """`name` keeps the ids of one test apart from another's on a shared engine; event time goes on across tests."""

    name: str
    seed: int = 1
    products: int = 60
    sets: int = 24
    candidates: int = 20
    events: int = 2_400
    seconds: float = 12.0
    begins_ms: int = START_MS
    rng: random.Random = field(init=False)
    published: int = 0

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)

    def product_id(self, number: int) -> str:
        return f"{self.name}-p{number}"

    def catalog(self) -> Iterator[Product]:
        for number in range(self.products):
            title = f"{self.rng.choice(COLOURS)} {self.rng.choice(GARMENTS)} {number}"
            yield Product(
                product_id=self.product_id(number),
                event_time=self.begins_ms,
                title=title,
                price=self.rng.randrange(500, 9_000),
                stock=self.rng.randrange(0, 30),
                currency="GBP",
            )

    def result_sets(self) -> Iterator[ResultSet]:
        for number in range(self.sets):
            chosen = self.rng.sample(range(self.products), self.candidates)
            yield ResultSet(
                result_set_id=f"{self.name}-s{number}",
                event_time=self.begins_ms,
                kind="search",
                query=f"{self.rng.choice(COLOURS)} {self.rng.choice(GARMENTS)}",
                candidates=[(self.product_id(p), self.rng.random()) for p in chosen],
                user_id=f"{self.name}-u{number % 5}" if number % 3 == 0 else None,
            )

    def story(self) -> Iterator[tuple[int, Product | Behavior]]:
        """(event time, event): two hours of event time, skewed over products, now and then a price or stock patch."""
        for number in range(self.events):
            event_time = self.begins_ms + MINUTE_MS + number * 120 * MINUTE_MS // self.events
            product = min(int(self.rng.expovariate(0.08)), self.products - 1)
            draw = self.rng.random()
            if draw < 0.2:
                yield event_time, self._patch(product, event_time)
            else:
                yield event_time, self._behavior(number, product, event_time)

    def _patch(self, product: int, event_time: int) -> Product:
        draw = self.rng.random()
        id_ = self.product_id(product)
        if draw < 0.7:
            return Product(product_id=id_, event_time=event_time, price=self.rng.randrange(500, 9_000))
        if draw < 0.85:
            return Product(product_id=id_, event_time=event_time, stock=self.rng.randrange(0, 3))
        if draw < 0.95:
            title = f"{self.rng.choice(COLOURS)} {self.rng.choice(GARMENTS)} {product}"
            return Product(product_id=id_, event_time=event_time, title=title)
        return Product(product_id=id_, event_time=event_time, delisted=self.rng.random() < 0.5)

    def _behavior(self, number: int, product: int, event_time: int) -> Behavior:
        kinds = ("impression", "impression", "click", "click", "cart", "purchase", "purchase", "return")
        return Behavior(
            type=self.rng.choice(kinds),  # type: ignore[arg-type]
            event_id=f"{self.name}-e{self.begins_ms}-{number}",
            product_id=self.product_id(product),
            event_time=event_time,
            user_id=f"{self.name}-u{self.rng.randrange(5)}" if self.rng.random() < 0.5 else None,
            quantity=self.rng.randrange(1, 4),
        )

    def open(self, settings: Settings) -> None:
        """Catalog, clock and lists."""
        connection = Connection.from_settings(settings)
        with Publisher(connection) as publisher, Registrar(connection) as registrar:
            publisher.publish_many(list(self.catalog()))
            publisher.heartbeat(self.begins_ms)
            for result_set in self.result_sets():
                registrar.register(result_set)

    def trade(self, settings: Settings, rearrange: "Rearrange | None" = None) -> None:
        """Publish the story at an even pace, heartbeats in between, and close with one for all."""
        story = [event for _, event in self.story()]
        story = story if rearrange is None else rearrange(story, self.rng)
        pause = self.seconds / len(story)
        clock = self.begins_ms
        with Publisher(Connection.from_settings(settings)) as publisher:
            began = time.monotonic()
            for number, event in enumerate(story):
                if event.event_time // MINUTE_MS > clock // MINUTE_MS:
                    clock = event.event_time // MINUTE_MS * MINUTE_MS
                    publisher.heartbeat(clock)
                publisher.publish(event)
                self.published += 1
                time.sleep(max(0.0, began + number * pause - time.monotonic()))
            publisher.heartbeat(self.ends_ms)

    @property
    def ends_ms(self) -> int:
        return self.begins_ms + 125 * MINUTE_MS

    def trading(self, settings: Settings) -> "Trading":
        """`trade` in a thread of its own."""
        return Trading(self, settings)


Rearrange = Callable[[list[Product | Behavior], random.Random], list[Product | Behavior]]


class Trading:
    """A story being published in the background. Leaving the block waits for its end."""

    def __init__(self, shop: Shop, settings: Settings) -> None:
        self._shop = shop
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(settings,))

    def _run(self, settings: Settings) -> None:
        try:
            self._shop.trade(settings)
        except BaseException as error:  # told to the test below
            self._error = error

    def wait_until(self, events: int) -> None:
        """Until so many events of the story were published."""
        while self._shop.published < events and self._thread.is_alive():
            time.sleep(0.02)

    def __enter__(self) -> "Trading":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join()
        if self._error is not None:
            raise self._error
