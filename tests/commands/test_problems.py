"""What a person must mend is one clear line and exit code 2."""

import socket
from pathlib import Path

import pytest
from click.testing import Result

from tests.commands.conftest import Invoke


def told(result: Result) -> str:
    """The last line on stderr, of a command that ended with exit code 2 and no traceback."""
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    return result.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("polish",), "No such command 'polish'"),
        (("demo", "--events", "0"), "0 is not in the range x>=1"),
        (("demo", "--speed", "fast"), "'fast' is not a valid float"),
        (("demo", "--data", "nowhere.csv"), "File 'nowhere.csv' does not exist"),
        (("up", "--ranking", "-1"), "-1 is not in the range"),
        (("up", "--heartbeats", "never"), "'never' is not one of 'owner', 'external'"),
        (("up", "--kafka-home", "nowhere"), "Directory 'nowhere' does not exist"),
        (("worker", "--role", "cook"), "'cook' is not one of"),
        (("publish", "nowhere.jsonl"), "'nowhere.jsonl': No such file or directory"),
        (("register", "nowhere.jsonl"), "'nowhere.jsonl': No such file or directory"),
        (("rankings", "--limit", "0"), "0 is not in the range x>=1"),
        (("why",), "Missing argument 'ID'"),
        (("verify", "--repository", "nowhere"), "Directory 'nowhere' does not exist"),
        (("dead-letters", "--reason", "ugly"), "'ugly' is none of too_large, too_deep"),
        (("dead-letters", "--topic", "rankings"), "'rankings' is not one of"),
        (("train", "--data", "nowhere.csv"), "File 'nowhere.csv' does not exist"),
        (("export", "nowhere"), "Directory 'nowhere' does not exist"),
    ],
)
def test_wrong_use(invoke: Invoke, arguments: tuple[str, ...], line: str) -> None:
    assert line in told(invoke(*arguments))


CLIENTS = (
    ("topics", "create"),
    ("topics", "check"),
    ("publish", "-"),
    ("register", "-"),
    ("rankings",),
    ("why", "search:mug"),
    ("verify",),
    ("dead-letters",),
)
INPUT = {
    "publish": '{"type": "product", "product_id": "p", "price": 5}',
    "register": '{"result_set_id": "r", "kind": "search", "candidates": [["p", 0.5]]}',
}


@pytest.mark.parametrize("arguments", CLIENTS, ids=" ".join)
def test_no_broker(invoke: Invoke, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]) -> None:
    with socket.socket() as taken:  # bound, not listening: nobody answers
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        monkeypatch.setenv("FRESHRANK_KAFKA", address)
        line = told(invoke(*arguments, input=INPUT.get(arguments[0])))
    assert line == f"Error: no Kafka broker answers at {address}"


def test_no_engine_and_no_setting_tells_what_to_do(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.settings.Settings.model_fields", {}, raising=False)
    line = told(invoke("freshness"))
    assert (
        line == "Error: which workers? no engine runs in this folder (freshrank up); name each by --metrics HOST:PORT"
    )


def test_a_worker_that_does_not_answer(invoke: Invoke) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        line = told(invoke("freshness", "--metrics", address))
    assert line.startswith(f"Error: no worker answers, {address} because: ")
    assert "refused" in line


def test_a_wrong_setting(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRESHRANK_KAFKA_KIND", "carrier pigeon")
    assert told(invoke("rankings")) == "Error: FRESHRANK_KAFKA_KIND: Input should be 'apache' or 'tansu'"


def test_a_wrong_history(invoke: Invoke, tmp_path: Path) -> None:
    file = tmp_path / "history.csv"
    file.write_text("a,b\n1,2\n")
    line = told(invoke("demo", "--data", file))
    assert line.startswith(f"Error: {file}: not an Online Retail file, it has no column ")
    assert list(tmp_path.glob(".freshrank/*/*.log")) == []


def test_export_without_weights(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    line = told(invoke("export", tmp_path / "weights", "--repository", tmp_path / "repository"))
    assert line == f"Error: no weights of product_encoder in {tmp_path / 'weights'}; `freshrank train` makes them"


def test_export_without_a_place(invoke: Invoke, tmp_path: Path) -> None:
    line = told(invoke("export", tmp_path))
    assert line == "Error: which repository? no engine runs in this folder (freshrank up); name one by --repository DIR"
