"""compose.yaml as far as it can be checked without an engine, and with its client where there is one."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from serving.settings import ServingSettings
from streams.metrics import METRICS
from streams.settings import Settings

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
WORKERS = ("product", "content", "ranking")
EVERY_SERVICE = pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES.keys())


def test_the_whole_engine_is_in_it() -> None:
    assert {"kafka", "redis", "triton", "triton-cpu", "topics", *WORKERS, "prometheus", "grafana"} == set(SERVICES)


@EVERY_SERVICE
def test_a_service_comes_from_a_pinned_image_or_a_stage_of_the_dockerfile(service: dict[str, Any]) -> None:
    if "build" in service:
        stages = re.findall(r"^FROM \S+ AS (\w+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
        assert service["build"]["target"] in stages
    else:
        _, _, tag = service["image"].partition(":")
        assert re.match(r"v?\d+\.\d+", tag), service["image"]


@EVERY_SERVICE
def test_a_service_has_a_health_check_or_says_why_not(service: dict[str, Any]) -> None:
    if service["healthcheck"].get("disable"):
        assert service["x-no-healthcheck"]
    else:
        assert service["healthcheck"]["test"][0] == "CMD"


@EVERY_SERVICE
def test_ports_are_published_on_loopback_only(service: dict[str, Any]) -> None:
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


@EVERY_SERVICE
def test_secrets_come_from_the_environment_and_must_be_set(service: dict[str, Any]) -> None:
    for name, value in service.get("environment", {}).items():
        if re.search("PASSWORD|AUTH|REDIS$", name):
            assert re.search(r"\$\{\w+:\?", value), name


@EVERY_SERVICE
def test_mounted_files_are_there_and_volumes_declared(service: dict[str, Any]) -> None:
    for volume in service.get("volumes", []):
        source = volume.split(":")[0]
        assert (ROOT / source).exists() if source.startswith("./") else source in COMPOSE["volumes"]


@EVERY_SERVICE
def test_what_a_service_waits_for_is_there_and_not_in_a_profile(service: dict[str, Any]) -> None:
    for name, dependency in service.get("depends_on", {}).items():
        assert "profiles" not in SERVICES[name]
        assert dependency["condition"] in {"service_healthy", "service_completed_successfully"}


@pytest.mark.parametrize("name", [*WORKERS, "topics"])
def test_workers_are_configured_by_settings_that_exist(name: str) -> None:
    given = {key.removeprefix("FRESHRANK_").lower() for key in SERVICES[name]["environment"]}
    assert given <= set(Settings.model_fields) | set(ServingSettings.model_fields)


def test_each_role_has_its_worker() -> None:
    assert [SERVICES[name]["command"] for name in WORKERS] == [["worker", "--role", name] for name in WORKERS]


def test_redis_forgets_nothing_silently() -> None:
    command = SERVICES["redis"]["command"][-1]
    assert "--maxmemory-policy noeviction" in command
    assert "--appendonly yes" in command


def test_just_one_triton_answers_to_the_name_and_one_has_a_gpu() -> None:
    tritons = {name: service for name, service in SERVICES.items() if name.startswith("triton")}
    assert {name: service["profiles"] for name, service in tritons.items()} == {
        "triton": ["gpu"],
        "triton-cpu": ["cpu"],
    }
    assert all(service["networks"]["default"]["aliases"] == ["triton"] for service in tritons.values())
    assert "deploy" in tritons["triton"]
    assert "deploy" not in tritons["triton-cpu"]


def test_triton_loads_the_models_of_the_repository() -> None:
    loaded = set(re.findall(r"--load-model=(\w+)", (ROOT / "Dockerfile").read_text()))
    assert loaded == {config.parent.name for config in (ROOT / "model_repository").glob("*/config.pbtxt")}


def test_prometheus_scrapes_every_worker() -> None:
    config = yaml.safe_load((ROOT / "deploy" / "prometheus.yml").read_text())
    (discovery,) = config["scrape_configs"][0]["dns_sd_configs"]
    assert set(discovery["names"]) == set(WORKERS)
    assert str(discovery["port"]) == SERVICES["ranking"]["environment"]["FRESHRANK_METRICS_PORT"]


def dashboard_queries() -> list[str]:
    (page,) = (ROOT / "deploy" / "grafana" / "dashboards").glob("*.json")
    panels = json.loads(page.read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel.get("targets", [])]


def alarm_queries() -> list[str]:
    (group,) = yaml.safe_load((ROOT / "deploy" / "alarms.yml").read_text())["groups"]
    return [rule["expr"] for rule in group["rules"]]


@pytest.mark.parametrize("query", [*dashboard_queries(), *alarm_queries()])
def test_dashboard_and_alarms_ask_for_metrics_and_labels_that_workers_expose(query: str) -> None:
    """What no worker exposes would be an empty panel, or an alarm that never comes."""
    labels = {spec.name: {*spec.labels} for spec in METRICS}
    names = set(re.findall(r"freshrank_\w+", query))
    known = {name.removesuffix("_bucket") if name.endswith("seconds_bucket") else name for name in names}
    assert known <= set(labels)
    assert query.count("(") == query.count(")")
    asked = {label for group in re.findall(r"by \(([^)]*)\)", query) for label in group.split(", ")}
    asked |= set(re.findall(r"[{,]\s*(\w+)=", query))
    for name in known:
        assert asked - {"le"} <= labels[name]


def test_every_counter_of_what_goes_wrong_is_watched() -> None:
    watched = " ".join(alarm_queries())
    page = (ROOT / "docs" / "reference" / "metrics.md").read_text()
    alarms = re.findall(r"^\| `(freshrank_\w+)` rises", page, re.MULTILINE)
    assert len(alarms) == 6
    assert all(name in watched for name in alarms)


def test_what_the_dockerfile_copies_is_there_and_not_ignored() -> None:
    copied = re.findall(r"^COPY (.+) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    names = {name for line in copied for name in line.split()}
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().split() if line.startswith("!")}
    assert names == allowed
    assert all((ROOT / name).exists() for name in names)


def compose_client() -> list[str] | None:
    """The Compose plugin or program, if one is installed."""
    for command in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(command[0]) and subprocess.run([*command, "version"], capture_output=True).returncode == 0:
            return command
    return None


CLIENT = compose_client()

if CLIENT is not None:  # where Compose is not installed, the tests above are the check

    @pytest.mark.parametrize("profile", ["cpu", "gpu"])
    def test_composes_own_client_accepts_it(profile: str) -> None:
        """`config` resolves the file without an engine."""
        done = subprocess.run(
            [*(CLIENT or ()), "--profile", profile, "config", "--quiet"],
            cwd=ROOT,
            env={**os.environ, "REDIS_PASSWORD": "secret", "GRAFANA_PASSWORD": "secret"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
