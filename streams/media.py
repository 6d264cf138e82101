"""Media by their sha256, in a folder or an object store; and the careful fetching of those that come as addresses.

Synchronous: call it in a thread. Errors say what is wrong with the medium; what is wrong with the store (a full disk, a
store that is away) is raised as the store raises it, an OSError.

* MediaError
  x NoSuchMedia     the store has none of this reference
  x BrokenMedia     what the store has is something else
  x RefusedAddress  not on an allowed host, or on a private network, or larger than allowed; never try again
  x FetchFailed     the host does not answer as it should; may work later
"""

import hashlib
import http.client
import ipaddress
import socket
import ssl
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from streams.validation import REFERENCE, is_allowed

MAX_FETCH_BYTES = 20 * 1024 * 1024
FETCH_TIMEOUT_S = 10.0
REDIRECTS = 3
CHUNK_BYTES = 64 * 1024
_REDIRECTING = (301, 302, 303, 307, 308)


class MediaError(Exception):
    """Root of what can be wrong with a medium."""


class NoSuchMedia(MediaError):
    """The store has none of this reference."""


class BrokenMedia(MediaError):
    """The store's bytes have another hash."""


class RefusedAddress(MediaError):
    """The address is not one to fetch from."""


class FetchFailed(MediaError):
    """The host did not give the medium."""


@dataclass(frozen=True)
class MediaStore:
    """`url` is fsspec's (`file://folder`, `s3://bucket/folder`, ...); `hosts` may be fetched from."""

    url: str
    hosts: tuple[str, ...] = ()
    allow_private: bool = False

    def put(self, data: bytes) -> str:
        """Keep the bytes, once; their reference. Nobody sees half of them."""
        digest = hashlib.sha256(data).hexdigest()
        self._write(self._place(digest), data)
        return f"sha256:{digest}"

    def get(self, reference: str) -> bytes:
        """The bytes of a reference. Raises NoSuchMedia, BrokenMedia."""
        if not REFERENCE.fullmatch(reference):
            raise NoSuchMedia(f"{reference!r:.80} is no reference: expected sha256: and 64 hexadecimal digits")
        digest = reference.removeprefix("sha256:")
        try:
            data: bytes = self._files.cat_file(self._place(digest))
        except FileNotFoundError:
            raise NoSuchMedia(f"the media store has no {reference}") from None
        if hashlib.sha256(data).hexdigest() != digest:
            raise BrokenMedia(f"the media store has other bytes than {reference} says")
        return data

    def open(self, reference: str) -> bytes:
        """The bytes of a reference or of an address; an address is fetched once, then remembered. Raises MediaError."""
        return self.get(reference if REFERENCE.fullmatch(reference) else self.resolve(reference))

    def resolve(self, address: str) -> str:
        """The reference of what an address gave when it was fetched first. Raises RefusedAddress, FetchFailed."""
        if not is_allowed(address, self.hosts):
            raise RefusedAddress(f"{address!r:.80} is on no allowed host")
        note = f"{self._root}/addresses/{hashlib.sha256(address.encode()).hexdigest()}"
        try:
            known: bytes = self._files.cat_file(note)
        except FileNotFoundError:
            reference = self.put(fetch(address, self.hosts, allow_private=self.allow_private))
            self._write(note, reference.encode())
            return reference
        return known.decode()

    def _place(self, digest: str) -> str:
        return f"{self._root}/sha256/{digest[:2]}/{digest}"

    def _write(self, place: str, data: bytes) -> None:
        if self._files.exists(place):
            return
        if "file" not in self._protocols:
            self._files.pipe_file(place, data)  # object stores show whole objects only
            return
        self._files.makedirs(place.rpartition("/")[0], exist_ok=True)
        draft = f"{place}.{uuid.uuid4().hex}"
        self._files.pipe_file(draft, data)
        self._files.mv(draft, place)

    @cached_property
    def _opened(self) -> tuple[Any, str]:
        # takes 70 ms, which not every process needs
        from fsspec.core import url_to_fs

        files, root = url_to_fs(self.url)
        return files, root.rstrip("/")

    @property
    def _files(self) -> Any:
        return self._opened[0]

    @property
    def _root(self) -> str:
        return self._opened[1]

    @property
    def _protocols(self) -> Sequence[str]:
        protocol = self._files.protocol
        return (protocol,) if isinstance(protocol, str) else protocol


def fetch(
    address: str,
    hosts: Sequence[str],
    *,
    max_bytes: int = MAX_FETCH_BYTES,
    timeout_s: float = FETCH_TIMEOUT_S,
    allow_private: bool = False,
) -> bytes:
    """The body behind an http(s) address, within a size and a time for all of it. Raises RefusedAddress, FetchFailed.

    Each redirect must lead to an allowed host again. A name that leads into a private network is refused, and the
    connection goes to the very address that was judged.
    """
    deadline = time.monotonic() + timeout_s
    for _ in range(REDIRECTS + 1):
        if not is_allowed(address, hosts):
            raise RefusedAddress(f"{address!r:.80} is on no allowed host")
        try:
            with _asked(address, deadline, allow_private) as response:
                if response.status not in _REDIRECTING:
                    return _body(address, response, max_bytes, deadline)
                address = urljoin(address, response.headers.get("Location", ""))
        except (OSError, http.client.HTTPException, ValueError) as error:
            late = time.monotonic() >= deadline
            why = f"takes longer than {timeout_s} s" if late else f"{error or type(error).__name__}"
            raise FetchFailed(f"{address!r:.80}: {why}") from None
    raise RefusedAddress(f"{address!r:.80}: more than {REDIRECTS} redirects")


@contextmanager
def _asked(address: str, deadline: float, allow_private: bool) -> Iterator[http.client.HTTPResponse]:
    """An answer whose body is still to be read."""
    parts = urlsplit(address)
    secure = parts.scheme == "https"
    host, port = (parts.hostname or "").encode("idna").decode(), parts.port or (443 if secure else 80)
    with closing(http.client.HTTPConnection(host, port)) as connection:
        plain = connection.sock = _connect(host, port, deadline, allow_private)
        if secure:
            context = ssl.create_default_context()
            connection.sock = context.wrap_socket(plain, server_hostname=host, do_handshake_on_connect=False)
        with _cut_off(connection.sock, deadline):
            if isinstance(connection.sock, ssl.SSLSocket):
                connection.sock.do_handshake()
            connection.request("GET", _target(parts), headers={"Host": parts.netloc, "Accept-Encoding": "identity"})
            with closing(connection.getresponse()) as response:
                yield response


@contextmanager
def _cut_off(connection: socket.socket, deadline: float) -> Iterator[None]:
    """Hang up at the deadline: a socket's own timeout begins anew with every byte that drips in."""

    def hang_up() -> None:
        with suppress(OSError):
            socket.socket.shutdown(connection, socket.SHUT_RDWR)

    timer = threading.Timer(_left(deadline), hang_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()


def _target(parts: SplitResult) -> str:
    path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~")
    return f"{path}?{quote(parts.query, safe='/%:@!$&()*+,;=~?')}" if parts.query else path


def _connect(host: str, port: int, deadline: float, allow_private: bool) -> socket.socket:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    if not allow_private and not all(_is_public(str(place[0])) for *_, place in found):
        raise RefusedAddress(f"{host} is an address of a private network")
    family, kind, protocol, _, place = found[0]
    connection = socket.socket(family, kind, protocol)
    try:
        connection.settimeout(_left(deadline))
        connection.connect(place)
    except BaseException:
        connection.close()
        raise
    return connection


def _is_public(text: str) -> bool:
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address.is_global and not address.is_multicast


def _body(address: str, response: http.client.HTTPResponse, max_bytes: int, deadline: float) -> bytes:
    if response.status != 200:
        raise FetchFailed(f"{address!r:.80}: the host answers {response.status}")
    missing = response.length  # None when the host does not say
    if missing is not None and missing > max_bytes:
        raise RefusedAddress(f"{address!r:.80}: expected at most {max_bytes} bytes, got {missing}")
    body = bytearray()
    while missing is None or missing > 0:
        chunk = response.read1(CHUNK_BYTES if missing is None else min(CHUNK_BYTES, missing))
        if not chunk:
            break
        body += chunk
        if len(body) > max_bytes:
            raise RefusedAddress(f"{address!r:.80}: expected at most {max_bytes} bytes, got more")
        if missing is not None:
            missing -= len(chunk)
    _left(deadline)  # a body without a length ends where the connection was cut off
    if missing:
        raise FetchFailed(f"{address!r:.80}: the connection ended {missing} bytes too early")
    return bytes(body)


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
