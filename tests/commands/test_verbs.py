"""Every verb that talks to an engine, on a real one: what goes in by `publish` comes out by `rankings`."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from streams.client import Connection, Outbox
from streams.local.engine import LocalEngine
from streams.records import CATALOG
from streams.settings import Limits
from tests.commands.conftest import Invoke
from tests.serving.test_versions import changed_weights

pytestmark = [pytest.mark.parts, pytest.mark.usefixtures("in_shop")]

EXAMPLES = Path(__file__).parents[2] / "examples"
#: heartbeats come once a minute, and nothing is published before the first
PATIENCE_S = 75


def objects(output: str) -> list[dict[str, Any]]:
    """One JSON object a line."""
    return [json.loads(line) for line in output.splitlines()]


@pytest.fixture(scope="module")
def registered(engine: LocalEngine, shop: Path) -> list[dict[str, Any]]:
    """The examples, published and registered; the first ranking of each set."""
    from click.testing import CliRunner

    from streams.cli import root

    here = Path.cwd()
    os.chdir(shop)
    try:
        published = CliRunner().invoke(root, ["publish", str(EXAMPLES / "products.jsonl"), "--json"])
        asked = ["register", str(EXAMPLES / "result_sets.jsonl"), "--wait", "--timeout", str(PATIENCE_S), "--json"]
        result = CliRunner().invoke(root, asked)
    finally:
        os.chdir(here)
    assert json.loads(published.stdout)["records"] == 6
    assert result.exit_code == 0, result.output
    return objects(result.stdout)


def wait_for_ranking(invoke: Invoke, name: str, last: str) -> dict[str, Any]:
    """The newest ranking of a set, once the product `last` stands at its end."""
    deadline = time.monotonic() + 20
    while True:
        (ranking,) = objects(invoke("rankings", name, "--json").stdout)
        if ranking["items"][-1]["product_id"] == last:
            return ranking
        assert time.monotonic() < deadline, ranking
        time.sleep(0.1)


def test_registered_sets_get_a_ranking(registered: list[dict[str, Any]]) -> None:
    assert {ranking["result_set_id"] for ranking in registered} == {"search:hanging heart", "home:anna"}
    for ranking in registered:
        assert (ranking["count"], ranking["model_version"], ranking["degraded"]) == (4, "default/1", False)
        assert [item["rank"] for item in ranking["items"]] == [1, 2, 3, 4]


@pytest.mark.usefixtures("registered")
def test_what_is_sold_out_goes_to_the_end(invoke: Invoke, tmp_path: Path) -> None:
    for product in ("21733", "22804"):  # whichever was last before, one of the two was not
        patch = json.dumps({"type": "product", "product_id": product, "stock": 0})
        again = json.dumps({"type": "product", "product_id": product, "stock": 9})
        published = invoke("publish", "-", "--bulk", "--json", input=patch)
        assert json.loads(published.stdout)["messages"] == 1
        ranking = wait_for_ranking(invoke, "search:hanging heart", last=product)
        assert ranking["caused_by"]["view"] == "product_catalog"
        assert ranking["caused_by"]["entity"] == product
        invoke("publish", "-", input=again)


@pytest.mark.usefixtures("registered")
def test_why_a_product_moved(invoke: Invoke) -> None:
    (ranking,) = objects(invoke("rankings", "search:hanging heart", "--json").stdout)
    first, version = ranking["items"][0]["product_id"], ranking["version"]
    invoke("publish", "-", input=json.dumps({"type": "product", "product_id": first, "stock": 0}))
    wait_for_ranking(invoke, "search:hanging heart", last=first)
    told = json.loads(invoke("why", "search:hanging heart", first, "--json").stdout)
    assert (told["rank_before"], told["rank_after"], told["stock"]) == (1, 4, "sold out")
    assert told["versions"][0] == version
    assert told["caused_by"]["entity"] == first
    assert [passing["loser"] for passing in told["passings"]] == [first] * 3
    assert told["explained"]
    everyone = json.loads(invoke("why", "search:hanging heart", "--json").stdout)
    assert {movement["product_id"] for movement in everyone["movements"]} == {
        item["product_id"] for item in ranking["items"]
    }
    text = invoke("why", "search:hanging heart", first).stdout
    assert "was passed by" in text
    assert f"{first} is sold out" in text
    assert "4 of 4 products" in invoke("why", "search:hanging heart").stdout
    invoke("publish", "-", input=json.dumps({"type": "product", "product_id": first, "stock": 9}))


@pytest.mark.usefixtures("registered")
def test_why_without_two_rankings_or_without_the_product(invoke: Invoke) -> None:
    nobody = invoke("why", "nobody's")
    assert (nobody.exit_code, nobody.stderr) == (2, "Error: there is no ranking of nobody's: nothing to compare\n")
    stranger = invoke("why", "search:hanging heart", "stranger")
    assert stranger.exit_code == 2
    assert stranger.stderr == "Error: product stranger is in neither ranking of search:hanging heart\n"


@pytest.mark.usefixtures("registered")
def test_registering_the_same_again_shows_what_stands(invoke: Invoke) -> None:
    asked = ("register", EXAMPLES / "result_sets.jsonl", "--wait", "--timeout", "30")
    result = invoke(*asked)
    assert result.exit_code == 0, result.output
    assert "White Hanging Heart T-light Holder" in result.stdout
    assert "home:anna" in result.stdout


@pytest.mark.usefixtures("registered")
def test_a_set_can_be_closed(invoke: Invoke) -> None:
    extra = '{"result_set_id": "search:tea", "kind": "search", "query": "tea", "candidates": [["22423", 0.5]]}'
    first = invoke("register", "-", "--wait", "--json", input=extra)
    assert objects(first.stdout)[0]["result_set_id"] == "search:tea"
    assert invoke("register", "-", "--close", input=extra).stdout == "search:tea\n"
    deadline = time.monotonic() + 20
    while "search:tea" in invoke("rankings").stdout:
        assert time.monotonic() < deadline
    unknown = invoke("rankings", "search:tea")
    assert unknown.exit_code == 2
    assert unknown.stderr == (
        "Error: no ranking of search:tea is in force; 2 sets are, among them home:anna, search:hanging heart\n"
    )


@pytest.mark.usefixtures("registered")
def test_rankings_for_humans(invoke: Invoke) -> None:
    overview = invoke("rankings").stdout.splitlines()
    assert [line.partition("  ")[0] for line in overview] == ["home:anna", "search:hanging heart"]
    table = invoke("rankings", "search:hanging heart", "--limit", "2").stdout
    assert "rank" in table
    assert "retrieval" in table  # the set asks for an explanation of its scores
    assert sum("Hanging Heart" in line for line in table.splitlines()) == 2


@pytest.mark.usefixtures("registered")
def test_rankings_are_followed_until_ctrl_c(invoke: Invoke, shop: Path) -> None:
    command = [sys.executable, "-m", "streams", "rankings", "--follow", "--json"]
    environment = {**os.environ, "PYTHONPATH": str(EXAMPLES.parent)}
    with subprocess.Popen(command, cwd=shop, env=environment, stdout=subprocess.PIPE, text=True) as follower:
        assert follower.stdout is not None
        standing = [json.loads(follower.stdout.readline()) for _ in range(2)]
        invoke("publish", "-", input='{"type": "product", "product_id": "85123A", "stock": 0}')
        news = json.loads(follower.stdout.readline())
        follower.send_signal(signal.SIGINT)
        assert follower.wait(10) == 130
    before = {ranking["result_set_id"]: ranking["version"] for ranking in standing}
    assert news["version"] > before[news["result_set_id"]]


@pytest.mark.usefixtures("registered")
def test_freshness(invoke: Invoke, in_shop: LocalEngine) -> None:
    told = json.loads(invoke("freshness", "--json").stdout)
    rows = {(row["view"], row["stage"]): row for row in told["freshness"]}
    assert rows["product_catalog", "row"]["events"] >= 6
    assert {row["topic"] for row in told["partitions"]} >= {"catalog", "behavior", "content", "result-sets"}
    assert told["unreachable"] == {}
    addresses = [part for address in in_shop.metrics_addresses.values() for part in ("--metrics", address)]
    assert json.loads(invoke("freshness", "--json", *addresses).stdout)["counters"] == pytest.approx(
        told["counters"], abs=50
    )
    text = invoke("freshness").stdout
    assert "product_catalog" in text
    assert "within SLO" in text


def test_bad_input_is_a_dead_letter(invoke: Invoke, in_shop: LocalEngine) -> None:
    outbox = Outbox(Connection.from_settings(in_shop.settings), Limits())
    outbox.send(CATALOG, 0, b"\xc1", b"p")
    outbox.send(CATALOG, 1, b"\x90" * 20, b"p")
    outbox.close()
    deadline = time.monotonic() + 20
    while not (letters := objects(invoke("dead-letters", "--reason", "not_msgpack", "--json").stdout)):
        assert time.monotonic() < deadline
    assert (letters[0]["topic"], letters[0]["partition"], letters[0]["value_base64"]) == ("catalog", 0, "wQ==")
    (line,) = invoke("dead-letters", "--reason", "not_msgpack", "--topic", "catalog").stdout.splitlines()
    assert "catalog[0] offset" in line
    assert "  not_msgpack  " in line
    none = invoke("dead-letters", "--topic", "behavior")
    assert (none.stdout, none.stderr) == ("", "no dead letters\n")


def test_topics(invoke: Invoke) -> None:
    assert json.loads(invoke("topics", "create", "--json").stdout) == []
    assert invoke("topics", "create").stdout == "all topics are there\n"
    found = json.loads(invoke("topics", "check", "--json").stdout)
    listed = json.loads(invoke("topics", "list", "--json").stdout)
    assert found["partitions"] == {topic["name"]: topic["partitions"] for topic in listed}
    assert "the newest ranking of each set" in invoke("topics", "list").stdout


def test_topics_that_differ(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRESHRANK_PARTITIONS", "8")
    result = invoke("topics", "check")
    assert result.exit_code == 2
    assert result.stderr.splitlines()[0] == "Error: topic catalog has 4 partitions, expected 8"


@pytest.mark.usefixtures("registered")
def test_everything_is_equal_to_the_oracle(invoke: Invoke) -> None:
    told = invoke("verify", "--json")
    assert told.exit_code == 0, told.output
    report = json.loads(told.stdout)
    assert report["ok"]
    assert report["result_sets"] >= 2
    explained = invoke("verify", "--explain", "home:anna")
    assert explained.stdout.startswith("home:anna: equal\n")
    unknown = invoke("verify", "--explain", "nobody's")
    assert unknown.exit_code == 2
    assert "no result set nobody's was registered or ranked" in unknown.stderr


def test_nothing_of_this_ended_a_worker(in_shop: LocalEngine) -> None:
    assert [worker.last_end for worker in in_shop.supervisor.status()] == [None, None, None]


def test_the_environment_goes_before_the_folder(
    invoke: Invoke, in_shop: LocalEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in in_shop.environment.items():
        monkeypatch.setenv(name, value)
    assert invoke("topics", "check").exit_code == 0


def test_a_worker_whose_metrics_port_is_used(in_shop: LocalEngine) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        environment = {**os.environ, **in_shop.environment, "PYTHONPATH": str(EXAMPLES.parent)}
        worker = subprocess.run(
            [sys.executable, "-m", "streams", "worker", "--role", "product", "--instance", "late"],
            env={**environment, "FRESHRANK_METRICS_PORT": str(port)},
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert worker.returncode == 1
    assert f"metrics port {port}: Address already in use" in worker.stderr.splitlines()[-1]


@pytest.mark.usefixtures("registered")
def test_exported_weights_come_into_force_and_out_of_it(invoke: Invoke, tmp_path: Path) -> None:
    weights = changed_weights(tmp_path / "weights", "ranker", by=0.9)
    bundle = json.loads(invoke("export", weights, "--serve", "--json").stdout)
    assert bundle["models"] == {"product_encoder": 1, "query_encoder": 1, "ranker": 2}
    report = json.loads(invoke("verify", "--timeout", "60", "--json").stdout)
    assert report["ok"], report
    (ranking,) = objects(invoke("rankings", "home:anna", "--json").stdout)
    assert ranking["model_version"] == "default/2"
    listed = objects(invoke("models", "--json").stdout)
    assert [(one["version"], one["in_force"]) for one in listed] == [(1, False), (2, True)]
    assert "default/1 is in force" in invoke("rollback").stdout
    assert json.loads(invoke("verify", "--timeout", "60", "--json").stdout)["ok"]
    (ranking,) = objects(invoke("rankings", "home:anna", "--json").stdout)
    assert ranking["model_version"] == "default/1"
    nothing = invoke("rollback")
    assert nothing.exit_code == 2
    assert "nothing to go back to" in nothing.stderr
