"""A leashed process: its log, its end, and the end of its parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from streams.local.process import LEASH, Process, describe_exit, wait_until

DEADLINE_S = 10.0
ROOT = Path(__file__).parents[2]


def shell(script: str, log: Path) -> Process:
    return Process(["sh", "-c", script], log)


FOUR_BUSY_THREADS = """
import hashlib, threading
def work():
    while True:
        hashlib.sha256(bytes(1_000_000))
for _ in range(4):
    threading.Thread(target=work).start()
print("up", flush=True)
"""


def state_of(thread: Path) -> str:
    """Its letter in /proc: R, S, T (stopped), Z ..."""
    return (thread / "stat").read_text().rpartition(")")[2].split()[0]


def has_gone(pid: int) -> bool:
    """No such process, or only its entry is left because nobody has asked for its exit code."""
    try:
        return state_of(Path(f"/proc/{pid}")) == "Z"
    except FileNotFoundError:
        return True


def test_output_goes_to_the_log_and_the_tail_is_of_the_last_start_only(tmp_path: Path) -> None:
    process = shell("echo out; echo error >&2; exit 3", tmp_path / "folder" / "a.log")
    for _ in range(2):
        process.start()
        assert wait_until(lambda: not process.alive(), DEADLINE_S)
        assert process.returncode == 3
        assert process.tail() == "out\nerror"
    assert process.log.read_text() == "out\nerror\n" * 2


def test_variables_are_added_to_the_inherited_ones(tmp_path: Path) -> None:
    process = Process(["sh", "-c", "echo $GREETING $HOME"], tmp_path / "a.log", {"GREETING": "hello"})
    process.start()
    assert wait_until(lambda: not process.alive(), DEADLINE_S)
    assert process.tail() == f"hello {os.environ['HOME']}"


def test_it_takes_turns_in_the_session_of_who_started_it_and_in_a_group_of_its_own(tmp_path: Path) -> None:
    process = shell("echo started; sleep 60", tmp_path / "a.log")
    process.start()
    assert wait_until(lambda: process.tail() == "started", DEADLINE_S)
    assert process.pid is not None
    assert os.sched_getscheduler(process.pid) == os.SCHED_BATCH
    assert (os.getpgid(process.pid), os.getsid(process.pid)) == (process.pid, os.getsid(0))
    process.kill()


def test_a_command_that_does_not_exist_ends_with_a_line_that_says_so(tmp_path: Path) -> None:
    process = Process(["/no/such/command"], tmp_path / "a.log")
    process.start()
    assert wait_until(lambda: not process.alive(), DEADLINE_S)
    assert process.returncode == 127
    assert process.tail() == "leash: /no/such/command: No such file or directory"


def test_starting_what_runs_is_an_error(tmp_path: Path) -> None:
    process = shell("sleep 60", tmp_path / "a.log")
    process.start()
    try:
        with pytest.raises(RuntimeError, match="running already"):
            process.start()
    finally:
        process.kill()


def test_stop_ends_what_ignores_sigterm_and_its_children(tmp_path: Path) -> None:
    process = shell("trap '' TERM; sleep 61 & echo $!; wait; sleep 62", tmp_path / "a.log")
    process.start()
    assert wait_until(lambda: process.tail().isdigit(), DEADLINE_S)
    child = int(process.tail())
    process.stop(grace_s=0.2)
    assert process.returncode == -signal.SIGKILL
    assert wait_until(lambda: has_gone(child), DEADLINE_S)


def test_stop_ends_the_children_that_a_command_leaves_behind(tmp_path: Path) -> None:
    process = shell("sh -c 'trap \"\" TERM; echo $$; while :; do sleep 1; done' & wait", tmp_path / "a.log")
    process.start()
    assert wait_until(lambda: process.tail().isdigit(), DEADLINE_S)
    child = int(process.tail())
    process.stop(grace_s=DEADLINE_S)
    assert process.returncode == -signal.SIGTERM
    assert wait_until(lambda: has_gone(child), DEADLINE_S)


def test_what_crashes_leaves_no_children_behind(tmp_path: Path) -> None:
    """Nobody stops it: somebody only asks whether it runs."""
    process = shell("sleep 63 & echo $!; kill -SEGV $$", tmp_path / "a.log")
    process.start()
    assert wait_until(lambda: not process.alive(), DEADLINE_S)
    assert process.returncode == -signal.SIGSEGV
    assert wait_until(lambda: has_gone(int(process.tail())), DEADLINE_S)


def test_a_frozen_process_is_alive_and_can_be_stopped(tmp_path: Path) -> None:
    process = shell("trap 'exit 5' TERM; echo up; while :; do sleep 0.05; done", tmp_path / "a.log")
    process.start()
    assert wait_until(lambda: process.tail() == "up", DEADLINE_S)
    process.freeze()
    assert process.alive()
    process.stop(grace_s=DEADLINE_S)
    assert process.returncode == 5


def test_every_thread_of_a_frozen_process_stands(tmp_path: Path) -> None:
    process = Process([sys.executable, "-c", FOUR_BUSY_THREADS], tmp_path / "a.log")
    process.start()
    assert wait_until(lambda: process.tail() == "up", DEADLINE_S)
    for _ in range(20):
        process.freeze()
        assert [state_of(thread) for thread in Path(f"/proc/{process.pid}/task").iterdir()] == ["T"] * 5
        process.thaw()
    process.kill()


def test_freezing_what_does_not_run_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="not running"):
        shell("true", tmp_path / "a.log").freeze()


def test_a_process_outlives_the_thread_that_started_it(tmp_path: Path) -> None:
    """The kernel sends "your parent died" when the thread ends that made the child."""
    process = shell("echo up; sleep 60", tmp_path / "a.log")
    thread = threading.Thread(target=process.start)
    thread.start()
    thread.join()
    assert wait_until(lambda: process.tail() == "up", DEADLINE_S)
    assert process.alive()
    process.kill()


@pytest.mark.parametrize("frozen", [False, True])
def test_a_process_dies_with_its_parent(tmp_path: Path, frozen: bool) -> None:
    program = (
        "import signal, sys; from pathlib import Path; from streams.local.process import Process, wait_until\n"
        "process = Process(['sh', '-c', 'echo up; exec sleep 63'], Path(sys.argv[1])); process.start()\n"
        "assert wait_until(lambda: process.tail() == 'up', 10)\n"
        f"{'process.freeze()' if frozen else ''}\n"
        "print(process.pid, flush=True); signal.pause()\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "a.log")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert not has_gone(child)
        parent.kill()
    assert wait_until(lambda: has_gone(child), DEADLINE_S)


def test_the_leash_refuses_to_start_what_has_lost_its_parent_already() -> None:
    nobody = 2**22  # above the kernel's greatest process id
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(LEASH), str(nobody), "--", "echo", "up"], capture_output=True
    )
    assert (done.returncode, done.stdout) == (125, b"")


def test_an_exit_is_described_by_its_code_or_signal() -> None:
    assert describe_exit(3) == "exit code 3"
    assert describe_exit(-signal.SIGKILL) == "SIGKILL"
