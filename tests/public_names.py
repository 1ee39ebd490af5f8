"""The public names of modules and of the command, a line each, with what they take: for `test_pins.py`."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import click

PACKAGE = "lensai_integrations"
#: Public modules, and what has to be installed for all of their names.
MODULES = {
    "": "",
    "edge": "",
    "errors": "",
    "keras": "keras",
    "lightning": "pytorch_lightning",
    "mlflow": "mlflow",
    "monitoring.sinks": "",
    "report": "",
    "torch": "torch",
    "transforms": "torchvision",
}


def names_of(module: str) -> Iterator[str]:
    """A line for each public name of a module, and for each public member of its classes."""
    home = import_module(f"{PACKAGE}.{module}".rstrip("."))
    names = getattr(home, "__all__", None) or [n for n, value in vars(home).items() if isinstance(value, type)]
    for name in sorted(names):
        value = getattr(home, name)
        if not isinstance(value, type):
            yield f"{name}{_signature(value)}"
            continue
        bases = ", ".join(base.__name__ for base in value.__mro__[1:-1] if base.__module__.split(".")[0] == "builtins")
        yield f"class {name}{_signature(value)}{f' is {bases}' if bases else ''}"
        yield from (f"    {line}" for line in _members(value))


def _members(kind: type) -> Iterator[str]:
    """What a class has from this package, wherever in its bases: of frameworks' classes it has more."""
    own = {}
    for base in reversed(kind.__mro__):
        if base.__module__.split(".")[0] == PACKAGE:
            own |= vars(base)
    for name, value in sorted(own.items()):
        if name.startswith("_") and name not in ("__call__", "__enter__", "__len__", "__getitem__"):
            continue
        if isinstance(value, classmethod | staticmethod):
            yield f"{type(value).__name__} {name}{_signature(value.__func__)}"
        elif isinstance(value, property):
            yield f"property {name}: {value.fget.__annotations__.get('return')}"
        elif callable(value):
            yield f"{name}{_signature(value)}"
        else:
            yield f"{name} = {_told(value)}"


def _signature(value: Any) -> str:
    """As it is written, whatever a version of Python makes of annotations."""
    if isinstance(value, type) and issubclass(value, Exception):
        return "(...)"  # is written in C; from Python to Python it differs whether that can be told
    signature = inspect.signature(value)
    told, kinds = [], [parameter.kind for parameter in signature.parameters.values()]
    for position, parameter in enumerate(signature.parameters.values()):
        if parameter.kind == parameter.KEYWORD_ONLY and parameter.VAR_POSITIONAL not in kinds:
            told += ["*"] if position == 0 or kinds[position - 1] != parameter.KEYWORD_ONLY else []
        star = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
        note = "" if parameter.annotation is parameter.empty else f": {_annotation(parameter.annotation)}"
        default = "" if parameter.default is parameter.empty else f" = {_told(parameter.default)}"
        told.append(f"{star}{parameter.name}{note}{default}")
    result = signature.return_annotation
    return f"({', '.join(told)})" + ("" if result is signature.empty else f" -> {_annotation(result)}")


def _annotation(annotation: Any) -> str:
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)


def _told(value: Any) -> str:
    """A default; of functions and classes their names, of objects their class."""
    if repr(value) == "<factory>":
        return "<factory>"
    if isinstance(value, type) or callable(value):
        return str(getattr(value, "__name__", type(value).__name__))
    plain = str | bytes | int | float | tuple | list | dict | frozenset | None
    return repr(value) if isinstance(value, plain) else f"<{type(value).__name__}>"


def command_lines(command: click.Command, path: str) -> Iterator[str]:
    """A line for each parameter of a command, those of its subcommands behind it."""
    yield path
    for parameter in command.params:
        is_flag = getattr(parameter, "is_flag", False)
        told = isinstance(parameter.default, str | int | float | tuple) and not is_flag
        words = ["required"] * parameter.required + ["several"] * (getattr(parameter, "multiple", False))
        words += [f"{parameter.nargs} of"] * (parameter.nargs != 1) + ["flag"] * is_flag
        choices = f" of {', '.join(parameter.type.choices)}" if isinstance(parameter.type, click.Choice) else ""
        default = f" = {parameter.default!r}" if told else ""
        names = ", ".join([*parameter.opts, *parameter.secondary_opts])
        yield f"    {names}: {' '.join([*words, parameter.type.name])}{choices}{default}"
    for name, each in sorted(getattr(command, "commands", {}).items()):
        yield from command_lines(each, f"{path} {name}")
