"""A few small nodes that behave as the pack's do, and a graph of them."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from svp_portrait.svp_models.cli.runner import build_registry
from svp_portrait.svp_models.cli.schema import InputSpec, NodeSpec
from svp_portrait.svp_models.errors import PortraitError


class Number:
    """A number as typed in; keeps what was asked of it."""

    @classmethod
    def define_schema(cls):
        return NodeSpec("Number", (InputSpec("value", "FLOAT", min=0, max=100),), ("FLOAT",))

    @classmethod
    def execute(cls, value):
        return SimpleNamespace(args=(value,), ui=None)


class Words:
    @classmethod
    def define_schema(cls):
        inputs = (
            InputSpec("text", "STRING"),
            InputSpec("mood", "COMBO", options=("happy", "sad")),
            InputSpec("count", "INT", optional=True, min=1),
            InputSpec("loud", "BOOLEAN", optional=True),
        )
        return NodeSpec("Words", inputs, ("STRING", "INT"))

    @classmethod
    def execute(cls, text, mood, count=1, loud=False):
        return SimpleNamespace(args=(f"{text} {mood}" * count, count), ui=None)


class Sum:
    @classmethod
    def define_schema(cls):
        return NodeSpec("Sum", (InputSpec("a", "FLOAT,INT"), InputSpec("b", "FLOAT")), ("FLOAT",))

    @classmethod
    def execute(cls, a, b):
        if a + b > 1000:
            raise PortraitError(f"{a + b} is too much: add less")
        return SimpleNamespace(args=(a + b,), ui=None)


class Show:
    """Output node; `shown` holds what it was given."""

    shown: list = []

    @classmethod
    def define_schema(cls):
        return NodeSpec("Show", (InputSpec("anything", "*"),), is_output_node=True)

    @classmethod
    def execute(cls, anything):
        cls.shown.append(anything)
        ui = {"images": [{"filename": "shown.png", "subfolder": "a", "type": "output"}], "animated": (True,)}
        return SimpleNamespace(args=(), ui=ui)


class Picky:
    """Checks its own `name`, as nodes of the host do with validate_inputs."""

    @classmethod
    def define_schema(cls):
        return NodeSpec("Picky", (InputSpec("name", "COMBO", options=("listed",)),), is_output_node=True)

    @classmethod
    def validate_inputs(cls, name, **others):
        return name in ("listed", "unlisted", None) or f"no file {name!r}"

    @classmethod
    def execute(cls, name):
        return SimpleNamespace(args=(), ui=None)


@pytest.fixture
def shown():
    Show.shown.clear()
    return Show.shown


@pytest.fixture
def registry(shown):
    return build_registry([Number, Words, Sum, Show, Picky])


@pytest.fixture
def content():
    """(2 + 3) shown, and a node that nothing needs."""
    return {
        "1": {"class_type": "Number", "inputs": {"value": 2}, "_meta": {"title": "First"}},
        "2": {"class_type": "Number", "inputs": {"value": 3.0}},
        "3": {"class_type": "Sum", "inputs": {"a": ["1", 0], "b": ["2", 0]}},
        "4": {"class_type": "Show", "inputs": {"anything": ["3", 0]}},
        "5": {"class_type": "Words", "inputs": {"text": "never", "mood": "sad"}},
    }
