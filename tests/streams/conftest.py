"""Tests of this folder run on a virtual clock, but for those that talk to a real part."""

import asyncio
from collections.abc import Callable, Mapping

import pytest

from tests.streams.loops import VirtualLoop


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Loops of the async tests and fixtures of this folder."""
    if item.get_closest_marker("parts"):
        return {"real": asyncio.new_event_loop}
    return {"virtual": VirtualLoop}
