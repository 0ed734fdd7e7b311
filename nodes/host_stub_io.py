"""Host stub of ComfyUI's `io`: input and output types, schema and node base class.

Each signature names its keywords, so that a node that uses something the stub lacks fails at once. The contract test compares
the schemas of host and stub.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

Text = str | None
Extra = dict[str, Any] | None  # further options of an input for the front end


class FolderType(str, Enum):
    """The three folders of results."""

    input = "input"
    output = "output"
    temp = "temp"


def _without_none(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


class Hidden(str, Enum):
    """Hidden inputs of a node."""

    prompt = "PROMPT"
    extra_pnginfo = "EXTRA_PNGINFO"


class Input:
    """One input."""

    io_type = "*"

    def __init__(self, id: str, *, optional: bool = False, tooltip: Text = None, extra_dict: Extra = None):
        self.id, self.optional, self.tooltip, self.extra_dict = id, optional, tooltip, extra_dict or {}
        self.default: Any = None

    def get_io_type(self) -> str:
        return self.io_type

    def as_dict(self) -> dict[str, Any]:
        given = {"optional": self.optional, "tooltip": self.tooltip}
        return _without_none(given | self.extra_dict | self.widget())

    def widget(self) -> dict[str, Any]:
        """Entries of the input's widget in `as_dict`."""
        return {}


class Output:
    """One output."""

    io_type = "*"

    def __init__(self, id: Text = None, *, display_name: Text = None, tooltip: Text = None):
        self.id, self.display_name, self.tooltip = id, display_name or id, tooltip

    def get_io_type(self) -> str:
        return self.io_type


def Custom(io_type: str) -> type:
    """A type of that name, with its Input and Output."""
    return _io_type(io_type, Input)


def _io_type(io_type: str, input_class: type[Input]) -> type:
    attributes = {
        "io_type": io_type,
        "Input": type("Input", (input_class,), {"io_type": io_type}),
        "Output": type("Output", (Output,), {"io_type": io_type}),
    }
    return type(io_type, (), attributes)


class _NumberInput(Input):
    def __init__(
        self, id: str, *, optional: bool = False, tooltip: Text = None, extra_dict: Extra = None,
        default: float | None = None, min: float | None = None, max: float | None = None, step: float | None = None,
    ):  # fmt: skip
        super().__init__(id, optional=optional, tooltip=tooltip, extra_dict=extra_dict)
        self.default, self.min, self.max, self.step = default, min, max, step

    def widget(self) -> dict[str, Any]:
        return {"default": self.default, "min": self.min, "max": self.max, "step": self.step}


class _IntInput(_NumberInput):
    def __init__(
        self, id: str, *, optional: bool = False, tooltip: Text = None, extra_dict: Extra = None,
        default: int | None = None, min: int | None = None, max: int | None = None, step: int | None = None,
        control_after_generate: bool | None = None,
    ):  # fmt: skip
        numbers = {"default": default, "min": min, "max": max, "step": step}
        super().__init__(id, optional=optional, tooltip=tooltip, extra_dict=extra_dict, **numbers)
        self.control_after_generate = control_after_generate

    def widget(self) -> dict[str, Any]:
        return super().widget() | {"control_after_generate": self.control_after_generate}


class _BooleanInput(Input):
    def __init__(
        self, id: str, *, optional: bool = False, tooltip: Text = None, extra_dict: Extra = None, default: bool | None = None
    ):  # fmt: skip
        super().__init__(id, optional=optional, tooltip=tooltip, extra_dict=extra_dict)
        self.default = default

    def widget(self) -> dict[str, Any]:
        return {"default": self.default}


class _StringInput(Input):
    def __init__(
        self,
        id: str,
        *,
        optional: bool = False,
        tooltip: Text = None,
        multiline: bool = False,
        placeholder: Text = None,
        default: Text = None,
        force_input: bool | None = None,
    ):
        super().__init__(id, optional=optional, tooltip=tooltip)
        self.multiline, self.placeholder, self.default, self.force_input = multiline, placeholder, default, force_input

    def widget(self) -> dict[str, Any]:
        given = {"default": self.default, "forceInput": self.force_input, "multiline": self.multiline}
        return given | {"placeholder": self.placeholder}


class _ComboInput(Input):
    def __init__(
        self, id: str, *, options: list[str], optional: bool = False, tooltip: Text = None, extra_dict: Extra = None,
        default: Text = None,
    ):  # fmt: skip
        super().__init__(id, optional=optional, tooltip=tooltip, extra_dict=extra_dict)
        self.options, self.default = options, default

    def widget(self) -> dict[str, Any]:
        return {"default": self.default, "multiselect": False, "options": self.options}


class _MultiTypeInput(Input):
    def __init__(self, id: str, *, types: list[type], optional: bool = False, tooltip: Text = None):
        super().__init__(id, optional=optional, tooltip=tooltip)
        self.io_type = ",".join(kind.io_type for kind in types)


@dataclass
class Schema:
    """Schema of a node."""

    node_id: str
    display_name: Text = None
    category: str = "sd"
    inputs: list[Input] = field(default_factory=list)
    outputs: list[Output] = field(default_factory=list)
    description: str = ""
    is_output_node: bool = False
    hidden: list[Hidden] = field(default_factory=list)


class NodeOutput:
    """Result of `execute`: the values of the outputs in order, and the ui."""

    def __init__(self, *args: Any, ui: Any = None):
        self.args, self.ui = args, ui

    @property
    def result(self) -> tuple[Any, ...] | None:
        return self.args or None


class ComfyNode:
    """Base class of all nodes. hidden: the hidden inputs of the schema, while the node runs."""

    hidden: Any = None

    @classmethod
    def define_schema(cls) -> Schema:
        raise NotImplementedError


Image, Mask, Audio, Video = (Custom(name) for name in ("IMAGE", "MASK", "AUDIO", "VIDEO"))
Latent, Vae = Custom("LATENT"), Custom("VAE")
Int = _io_type("INT", _IntInput)
Float = _io_type("FLOAT", _NumberInput)
Boolean = _io_type("BOOLEAN", _BooleanInput)
String = _io_type("STRING", _StringInput)
Combo = _io_type("COMBO", _ComboInput)
MultiType = type("MultiType", (), {"Input": _MultiTypeInput})
