"""Media by their hash, and the careful fetching of addresses."""

import hashlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from streams.media import (
    BrokenMedia,
    FetchFailed,
    MediaError,
    MediaStore,
    NoSuchMedia,
    RefusedAddress,
    _is_public,
    fetch,
)

PNG = b"\x89PNG\r\n\x1a\n" + b"\x00" * 100


@pytest.fixture
def store(tmp_path: Path) -> MediaStore:
    return MediaStore(f"file://{tmp_path}/media")


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


# --- the store -----------------------------------------------------------------------------------------------------


def test_a_reference_is_the_hash_of_the_bytes(store: MediaStore) -> None:
    reference = store.put(PNG)
    assert reference == f"sha256:{hashlib.sha256(PNG).hexdigest()}"
    assert store.get(reference) == PNG
    assert store.open(reference) == PNG


def test_a_constructor_makes_nothing(tmp_path: Path) -> None:
    MediaStore(f"file://{tmp_path}/media")
    assert not (tmp_path / "media").exists()


def test_the_same_bytes_are_kept_once_whoever_brings_them(store: MediaStore, tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        references = set(pool.map(lambda _: MediaStore(store.url).put(PNG), range(32)))
    assert len(references) == 1
    assert len(files(tmp_path)) == 1


def test_any_file_system_of_fsspec_will_do() -> None:
    store = MediaStore("memory://media-of-a-test")
    assert store.get(store.put(PNG)) == PNG


@pytest.mark.parametrize(
    "reference", ["sha256:" + "0" * 64, "sha256:../../../etc/passwd", "sha256:" + "A" * 64, "", "https://shop.test/a"]
)
def test_what_is_not_there_is_no_such_media(store: MediaStore, reference: str) -> None:
    with pytest.raises(NoSuchMedia):
        store.get(reference)


def test_bytes_that_changed_in_the_store_are_noticed(store: MediaStore, tmp_path: Path) -> None:
    reference = store.put(PNG)
    files(tmp_path)[0].write_bytes(PNG[:-1])
    with pytest.raises(BrokenMedia, match=reference):
        store.get(reference)


def test_a_store_that_cannot_be_written_is_no_media_error(tmp_path: Path) -> None:
    (tmp_path / "media").write_text("a file where the folder should be")
    with pytest.raises(OSError, match="media"):
        MediaStore(f"file://{tmp_path}/media").put(PNG)


# --- addresses -----------------------------------------------------------------------------------------------------


class Host(BaseHTTPRequestHandler):
    """Answers by path, well or badly."""

    protocol_version = "HTTP/1.1"
    asked: list[str]
    released: threading.Event

    def handle(self) -> None:
        with suppress(ConnectionError):  # those who refuse a body hang up
            super().handle()

    def do_GET(self) -> None:
        self.asked.append(self.path)
        match self.path.strip("/").split("/"):
            case ["picture.png"] | ["a%20b.png?size=1%202"]:
                self._answer(200, PNG)
            case ["chunked"]:
                self.send_response(200)
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                self.wfile.write(b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
            case ["without-length", count]:
                self.send_response(200)
                self.send_header("Connection", "close")
                self.end_headers()
                self.wfile.write(b"x" * int(count))
                self.close_connection = True
            case ["to", *place]:
                self._answer(302, b"", Location="/".join(place).replace("~", "//"))
            case ["loop"]:
                self._answer(302, b"", Location="/loop")
            case ["short"]:
                self.send_response(200)
                self.send_header("Content-Length", "100")
                self.end_headers()
                self.wfile.write(b"x" * 10)
                self.close_connection = True
            case ["drip"]:
                self.send_response(200)
                self.send_header("Connection", "close")
                self.end_headers()
                self._drip(b"x")
            case ["drip-headers"]:
                self.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
                self._drip(b"x")
            case _:
                self._answer(404, b"")

    def _answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _drip(self, drop: bytes) -> None:
        """Until the caller has gone, or the test ends."""
        self.close_connection = True
        while not self.released.wait(0.02):
            try:
                self.wfile.write(drop)
            except OSError:
                return

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


class Server:
    def __init__(self, server: ThreadingHTTPServer, asked: list[str]) -> None:
        self.host = f"127.0.0.1:{server.server_port}"
        self.asked = asked

    def address(self, path: str) -> str:
        return f"http://{self.host}/{path}"

    def fetch(self, path: str, *, max_bytes: int = 1000, timeout_s: float = 5.0) -> bytes:
        hosts = (self.host,)
        return fetch(self.address(path), hosts, max_bytes=max_bytes, timeout_s=timeout_s, allow_private=True)


@pytest.fixture
def server() -> Iterator[Server]:
    asked: list[str] = []
    released = threading.Event()
    handler = type("Handler", (Host,), {"asked": asked, "released": released})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield Server(http, asked)
        finally:
            released.set()
            http.shutdown()
            thread.join()


def test_a_picture_is_fetched(server: Server) -> None:
    assert server.fetch("picture.png") == PNG
    assert server.fetch("a b.png?size=1 2") == PNG


def test_bodies_without_a_length(server: Server) -> None:
    assert server.fetch("chunked") == b"abcde"
    assert server.fetch("without-length/1000") == b"x" * 1000


def test_redirects_are_followed_on_allowed_hosts_only(server: Server) -> None:
    assert server.fetch("to//picture.png") == PNG
    assert server.fetch("to/picture.png/../../picture.png") == PNG
    for elsewhere in ("http:~localhost/picture.png", "http:~elsewhere.test/a", "file:~/etc/passwd"):
        with pytest.raises(RefusedAddress, match="on no allowed host"):
            server.fetch(f"to/{elsewhere}")
    with pytest.raises(RefusedAddress, match="more than 3 redirects"):
        server.fetch("loop")


@pytest.mark.parametrize("path", ["picture.png", "chunked", "without-length/1000"])
def test_what_is_too_large_is_refused(server: Server, path: str) -> None:
    with pytest.raises(RefusedAddress, match="expected at most 4 bytes"):
        server.fetch(path, max_bytes=4)


@pytest.mark.parametrize("path", ["drip", "drip-headers"])
def test_the_time_is_for_all_of_it(server: Server, path: str) -> None:
    with pytest.raises(FetchFailed, match=r"takes longer than 0\.3 s"):
        server.fetch(path, timeout_s=0.3, max_bytes=10_000_000)


def test_what_the_host_does_not_have_or_breaks_off(server: Server) -> None:
    with pytest.raises(FetchFailed, match="answers 404"):
        server.fetch("nothing")
    with pytest.raises(FetchFailed, match="90 bytes too early"):
        server.fetch("short")


def test_nobody_there() -> None:
    with pytest.raises(FetchFailed, match="refused"):
        fetch("http://127.0.0.1:1/a.png", ("127.0.0.1:1",), allow_private=True)


def test_a_private_network_is_refused_even_on_an_allowed_host(server: Server) -> None:
    with pytest.raises(RefusedAddress, match="private network"):
        fetch(server.address("picture.png"), (server.host,))
    assert server.asked == []


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1::1", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("::1", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("::ffff:127.0.0.1", False),
    ],
)
def test_which_networks_are_public(address: str, public: bool) -> None:
    assert _is_public(address) is public


def test_an_address_is_fetched_once_and_then_remembered(server: Server, tmp_path: Path) -> None:
    def opened() -> bytes:
        return MediaStore(f"file://{tmp_path}", (server.host,), allow_private=True).open(server.address("picture.png"))

    assert opened() == opened() == PNG
    assert server.asked == ["/picture.png"]


def test_a_failed_fetch_is_not_remembered(server: Server, tmp_path: Path) -> None:
    store = MediaStore(f"file://{tmp_path}", (server.host,), allow_private=True)
    for _ in range(2):
        with pytest.raises(FetchFailed):
            store.open(server.address("nothing"))
    assert len(server.asked) == 2


def test_no_address_is_opened_unless_its_host_is_allowed(store: MediaStore) -> None:
    for address in ("http://127.0.0.1/a.png", "https://shop.test/a.png", "file:///etc/passwd", "picture.png"):
        with pytest.raises(MediaError):
            store.open(address)
