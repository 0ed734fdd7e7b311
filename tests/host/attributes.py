"""Which attributes of an object a class' methods read, from the class' source: standard library alone, the host runs it too."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterable


def methods_of(cls: type) -> dict[str, ast.AST]:
    """The methods of a class and its bases, by name, as syntax trees."""
    found: dict[str, ast.AST] = {}
    for base in reversed(cls.__mro__[:-1]):
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        found |= {node.name: node for node in tree.body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))}
    return found


def dotted(node: ast.AST) -> str:
    """`self.model` of that expression; empty for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    owner = dotted(node.value) if isinstance(node, ast.Attribute) else ""
    return f"{owner}.{node.attr}" if owner else ""


def reads(method: ast.AST, owner: str) -> set[str]:
    """The attributes of `owner` (`self`, `self.model`) that a method reads without asking first whether they are there."""
    asked = {
        node.args[1].value
        for node in ast.walk(method)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in ("hasattr", "getattr")
        and isinstance(node.args[1], ast.Constant)
    }
    found = {
        node.attr
        for node in ast.walk(method)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load) and dotted(node.value) == owner
    }
    return found - asked


def reached(cls: type, begin: Iterable[str]) -> set[str]:
    """Those methods and all that they call on the same object."""
    methods, names, todo = methods_of(cls), set(), list(begin)
    while todo:
        name = todo.pop()
        if name in methods and name not in names:
            names.add(name)
            todo += reads(methods[name], "self")
    return names


def lacking(value: object, owner: str, cls: type, begin: Iterable[str]) -> dict[str, list[str]]:
    """What the methods of `cls` that are reached from `begin` read of `owner`, and `value`, which stands for it, has not:
    attribute -> methods that read it."""
    methods = methods_of(cls)
    missing: dict[str, list[str]] = {}
    for name in sorted(reached(cls, begin)):
        for attribute in reads(methods[name], owner):
            if not hasattr(value, attribute):
                missing.setdefault(attribute, []).append(name)
    return missing
