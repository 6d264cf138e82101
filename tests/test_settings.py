"""Settings as variables for a child process."""

import os
from pathlib import Path

import pytest
from pydantic import SecretStr

from serving.settings import ServingSettings
from streams.settings import Limits, Settings, environment


def test_a_child_process_has_the_settings_of_its_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = Settings(
        kafka="a:1,b:2",
        kafka_security="SASL_SSL",
        kafka_username="u",
        kafka_password=SecretStr("p w"),
        kafka_ca=Path("/ca.pem"),
        redis=SecretStr("rediss://x:y@h:1/0"),
        media_hosts=("one.example", "two.example"),
        accept_gap=True,
        flush_s=0.125,
        limits=Limits(depth=3),
    )
    serving = ServingSettings(triton="t:1", triton_tls=True, media_max_bytes=7)
    variables = environment(ours, serving)
    for name in os.environ.keys() | variables.keys():
        if name.startswith("FRESHRANK_"):
            monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert Settings() == ours
    assert ServingSettings() == serving


def test_what_is_unset_stays_unset() -> None:
    assert "FRESHRANK_KAFKA_PASSWORD" not in environment(Settings(kafka_password=None))
