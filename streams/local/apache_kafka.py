"""Apache Kafka (>= 4.0) from KAFKA_HOME: one KRaft node, broker and controller, with its own properties and data."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import uuid
from pathlib import Path

from streams.local.kafka_probe import broker_answers
from streams.local.part import Command, PartFailed, ProcessPart
from streams.local.ports import HeldPort

FORMAT_TIMEOUT_S = 60.0
#: a small young generation: the broker stands still for 6 ms at a time, where 80 MB take 12
HEAP = ("-Xms1g", "-Xmx1g", "-Xmn32m")


class ApacheKafka(ProcessPart):
    """One Apache Kafka node on loopback. Its data folder outlives kill() and stop(), so a restart keeps everything."""

    name = "kafka"
    kind = "apache"
    grace_s = 15.0

    def __init__(self, folder: Path, kafka_home: Path, *, port: int = 0) -> None:
        self._port = HeldPort(port)
        self._controller_port = HeldPort()
        super().__init__(folder, self._port, self._controller_port)
        self.kafka_home = kafka_home.absolute()
        self.data_dir = folder.absolute() / "kafka-data"

    def _command(self) -> Command:
        """Start takes about a second longer the first time: the data folder is formatted."""
        java = [_java(), "-XX:+UseSerialGC", f"-Dkafka.logs.dir={self.folder.absolute()}"]
        java += ["-cp", str(self._libs() / "*")]
        properties = self.folder / "kafka.properties"
        properties.write_text(self._properties())
        if not (self.data_dir / "meta.properties").exists():
            # fmt: off
            self._format([
                *java, "kafka.tools.StorageTool", "format", "--standalone", "--ignore-formatted",
                "-t", _cluster_id(), "-c", str(properties),
            ])
            # fmt: on
        log4j = f"-Dlog4j2.configurationFile={self.kafka_home / 'config' / 'log4j2.yaml'}"
        return Command((*java, *HEAP, log4j, "kafka.Kafka", str(properties)))

    def _answers(self) -> bool:
        return broker_answers(self.address)

    def _libs(self) -> Path:
        libs = self.kafka_home / "libs"
        if not any(libs.glob("kafka_*.jar")):
            raise PartFailed(f"kafka: {libs} has no Kafka in it; KAFKA_HOME must name an Apache Kafka 4.0 or newer")
        return libs

    def _format(self, command: list[str]) -> None:
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=FORMAT_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise PartFailed(f"kafka: formatting {self.data_dir} took more than {FORMAT_TIMEOUT_S:g} s") from None
        if done.returncode != 0:
            raise PartFailed(f"kafka: cannot format {self.data_dir}: {(done.stderr or done.stdout).strip()}")

    def _properties(self) -> str:
        broker, controller = self._port.address, self._controller_port.address
        settings = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.bootstrap.servers": controller,
            "listeners": f"PLAINTEXT://{broker},CONTROLLER://{controller}",
            "advertised.listeners": f"PLAINTEXT://{broker},CONTROLLER://{controller}",
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "log.dirs": str(self.data_dir),
            # a mistyped topic is an error, not a new topic
            "auto.create.topics.enable": "false",
            # one node: every internal topic has one replica
            "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "4",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "transaction.state.log.num.partitions": "2",
            "share.coordinator.state.topic.replication.factor": "1",
            "share.coordinator.state.topic.min.isr": "1",
            # the system's own, which grow: Kafka's 100 KiB are less than two segments of the loopback, and a longer
            # request waits for a delayed acknowledgement, 40 ms each
            "socket.receive.buffer.bytes": "-1",
            "socket.send.buffer.bytes": "-1",
            # groups join at once; and the node is back soon after a kill, which by default takes nine seconds longer
            "group.initial.rebalance.delay.ms": "0",
            "broker.heartbeat.interval.ms": "500",
            "broker.session.timeout.ms": "2000",
        }
        return "".join(f"{key}={value}\n" for key, value in settings.items())


def _java() -> str:
    """JAVA_HOME's java, else the one on the PATH."""
    if home := os.environ.get("JAVA_HOME"):
        java = Path(home, "bin", "java")
        if not java.is_file():
            raise PartFailed(f"kafka: JAVA_HOME={home} has no bin/java")
        return str(java)
    if found := shutil.which("java"):
        return found
    raise PartFailed("kafka: no java on the PATH and JAVA_HOME is not set; Apache Kafka needs Java 17 or newer")


def _cluster_id() -> str:
    """A random id in Kafka's form: 16 bytes as 22 characters of URL-safe base64 that do not begin with a dash."""
    while (text := base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")).startswith("-"):
        pass
    return text
