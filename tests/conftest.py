"""Fixtures for every test; the real local parts come from tests.parts."""

pytest_plugins = ["tests.parts"]
