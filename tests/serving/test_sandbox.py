"""The sandbox: whatever the child does, the caller gets an array or BadMedia, and the next call works.

The functions at the end run in the child.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from serving.errors import BadMedia
from serving.preprocess.sandbox import Sandbox

ROOT = Path(__file__).parents[2]
FLOAT = np.dtype(np.float32)


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    """A sandbox that runs the functions of this file."""
    box = Sandbox(modules=(__name__,), memory=256 << 20, processor_s=1)
    yield box
    box.close()


def call(box: Sandbox, name: str, *arguments: object, shape: tuple[int, ...] = (2, 3)) -> NDArray[np.float32]:
    return box.call(f"{__name__}.{name}", *arguments, dtype=FLOAT, shape=shape)


def answers(box: Sandbox) -> bool:
    """Whether the next call works."""
    return bool((call(box, "threes", 7.0) == 7).all())


def test_a_function_runs_in_another_process(sandbox: Sandbox) -> None:
    assert call(sandbox, "threes", 3.0).tolist() == [[3.0] * 3] * 2
    assert call(sandbox, "process", shape=(1,))[0] != os.getpid()


def test_one_child_answers_many_calls(sandbox: Sandbox) -> None:
    first = call(sandbox, "process", shape=(1,))
    assert all(call(sandbox, "process", shape=(1,)) == first for _ in range(10))


def test_the_array_is_the_callers_own(sandbox: Sandbox) -> None:
    array = call(sandbox, "threes", 3.0)
    array += 1
    assert array.max() == 4


def test_bad_media_is_raised_as_it_was(sandbox: Sandbox) -> None:
    with pytest.raises(BadMedia) as caught:
        call(sandbox, "refuse", "too blue")
    assert caught.value.reason == "too blue"
    assert answers(sandbox)


def test_a_reason_is_cut_short(sandbox: Sandbox) -> None:
    with pytest.raises(BadMedia) as caught:
        call(sandbox, "refuse", "é" * 5000)
    assert caught.value.reason.startswith("ééé")
    assert len(caught.value.reason) <= 1000
    assert answers(sandbox)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("segfault", "SIGSEGV"),
        ("abort", "SIGABRT"),
        ("leave", "exit status 3"),
        ("defect", "exit status 1"),
        ("allocate", "more than 268435456 bytes of memory"),
        ("hang", "more than 1 s of processor time"),
        ("lie_about_length", "ends the decoder"),
        ("babble", "ends the decoder"),
        ("other_shape", "ends the decoder"),
    ],
)
def test_what_ends_the_child_is_bad_media(sandbox: Sandbox, name: str, reason: str) -> None:
    with pytest.raises(BadMedia, match=reason):
        call(sandbox, name)
    assert answers(sandbox)


def test_a_child_that_sleeps_is_ended() -> None:
    box = Sandbox(modules=(__name__,), patience_s=0.2)
    try:
        with pytest.raises(BadMedia, match=r"more than 0\.2 s"):
            call(box, "wait")
        assert answers(box)
    finally:
        box.close()


def test_a_kill_from_outside_condemns_no_medium(sandbox: Sandbox) -> None:
    pid = int(call(sandbox, "process", shape=(1,))[0])
    os.kill(pid, signal.SIGKILL)
    assert answers(sandbox)
    assert call(sandbox, "process", shape=(1,))[0] != pid


def test_an_interrupt_at_the_terminal_is_for_the_parent(sandbox: Sandbox) -> None:
    pid = int(call(sandbox, "process", shape=(1,))[0])
    os.kill(pid, signal.SIGINT)
    assert call(sandbox, "process", shape=(1,))[0] == pid


def test_what_another_medium_left_behind_condemns_no_medium(sandbox: Sandbox) -> None:
    """A child that runs out of memory because of earlier calls is replaced."""
    for _ in range(6):
        assert call(sandbox, "leak").max() == 1


def test_the_child_can_open_nothing(sandbox: Sandbox, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("secret")
    for name, argument in (("read", str(file)), ("write", str(tmp_path / "new")), ("connect", 9), ("fork", 0)):
        assert call(sandbox, name, argument, shape=(1,))[0] == 0, name
    assert not (tmp_path / "new").exists()


def test_the_child_knows_nothing_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRESHRANK_REDIS", "redis://:secret@127.0.0.1")
    box = Sandbox(modules=(__name__,))
    try:
        assert call(box, "knows", "FRESHRANK_REDIS", shape=(1,))[0] == 0
    finally:
        box.close()


def test_threads_take_turns(sandbox: Sandbox) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda n: float(call(sandbox, "threes", float(n)).max()), range(50)))
    assert found == list(range(50))


def test_a_fork_gets_a_child_of_its_own() -> None:
    """As a process of data loaders does; in a process of its own, since this one has threads."""
    script = f"""
import os
import numpy as np
from serving.preprocess.sandbox import SANDBOX
def process():
    return int(SANDBOX.call("{__name__}.process", dtype=np.dtype(np.float32), shape=(1,))[0])
SANDBOX.modules = ("{__name__}",)
mine = process()
pid = os.fork()
if pid == 0:
    os._exit(0 if process() != mine else 1)
assert os.waitpid(pid, 0)[1] == 0
assert process() == mine
"""
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT, timeout=60)


def test_the_child_ends_with_its_parent() -> None:
    script = f"""
import os, signal
import numpy as np
from serving.preprocess.sandbox import Sandbox
box = Sandbox(modules=("{__name__}",))
print(int(box.call("{__name__}.process", dtype=np.dtype(np.float32), shape=(1,))[0]), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    ended = subprocess.run([sys.executable, "-c", script], cwd=ROOT, timeout=60, capture_output=True)
    assert ended.returncode == -signal.SIGKILL
    child = int(ended.stdout)
    gone = threading.Event()
    for _ in range(500):
        if not Path(f"/proc/{child}").exists() or Path(f"/proc/{child}/stat").read_text().split()[2] == "Z":
            gone.set()
            break
        gone.wait(0.01)
    assert gone.is_set()


def test_a_child_that_cannot_start_is_no_bad_media() -> None:
    with pytest.raises(RuntimeError, match="does not start"):
        Sandbox(modules=("serving.no_such_module",)).call("serving.no_such_module.f", dtype=FLOAT, shape=(1,))


def test_this_process_never_loads_ffmpeg() -> None:
    script = "import sys, serving.preprocess, streams.content_side; assert 'av' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT, timeout=60)


# --- what the child runs -------------------------------------------------------------------------------------------


def warm_up() -> None:
    """Nothing of this file is imported late."""


def threes(value: float) -> NDArray[np.float32]:
    return np.full((2, 3), value, np.float32)


def process() -> NDArray[np.float32]:
    return np.array([os.getpid()], np.float32)


def refuse(reason: str) -> NDArray[np.float32]:
    raise BadMedia(reason)


def segfault() -> None:
    ctypes.string_at(0)


def abort() -> None:
    os.abort()


def leave() -> None:
    os._exit(3)


def defect() -> None:
    raise LookupError("a defect of ours")


def allocate() -> NDArray[np.float32]:
    return np.ones(1 << 28, np.float32)


def hang() -> None:
    while True:
        pass


def wait() -> None:
    threading.Event().wait()


_kept: list[NDArray[np.float32]] = []


def leak() -> NDArray[np.float32]:
    _kept.append(np.ones(25 << 20, np.float32))  # 100 MiB, of 256
    return threes(1.0)


def lie_about_length() -> None:
    """As a child taken over might."""
    _say(b"A" + (1 << 60).to_bytes(8, "little"))


def babble() -> None:
    _say(b"%" * 10_000)


def other_shape() -> NDArray[np.float32]:
    return np.zeros(7, np.float32)


def _say(lie: bytes) -> None:
    pipes = [n for n in range(3, 16) if n in _open_files()]
    for pipe in pipes:
        os.write(pipe, lie)
    threading.Event().wait()


def _open_files() -> set[int]:
    found = set()
    for number in range(16):
        try:
            os.fstat(number)
        except OSError:
            continue
        found.add(number)
    return found


def read(path: str) -> NDArray[np.float32]:
    try:
        with open(path):
            return np.ones(1, np.float32)
    except OSError:
        return np.zeros(1, np.float32)


def write(path: str) -> NDArray[np.float32]:
    try:
        with open(path, "w"):
            return np.ones(1, np.float32)
    except OSError:
        return np.zeros(1, np.float32)


def connect(port: int) -> NDArray[np.float32]:
    try:
        with socket.socket() as opened:
            opened.connect_ex(("127.0.0.1", port))
            return np.ones(1, np.float32)
    except OSError:
        return np.zeros(1, np.float32)


def fork(_: int) -> NDArray[np.float32]:
    """Whether another program could be started."""
    try:
        with subprocess.Popen(["/bin/true"]):
            return np.ones(1, np.float32)
    except OSError:
        return np.zeros(1, np.float32)


def knows(name: str) -> NDArray[np.float32]:
    return np.array([name in os.environ], np.float32)
