"""The callback's arguments as JSON values, and back, so that a configuration file can describe it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from lensai_integrations.errors import InputError
from lensai_integrations.measures.custom import CustomMeasure, registered
from lensai_integrations.measures.embeddings import Reduce
from lensai_integrations.measures.inputs import ImageInputs
from lensai_integrations.training.options import SOURCES, Options

#: Options that the Keras callback has no use for.
NOT_OURS = ("dataloader_idx", "since")


def configuration(options: Options) -> dict[str, Any]:
    """JSON values that `from_configuration` turns into the arguments again.

    Raises:
        InputError: If a reduction is a function, which JSON cannot hold.
    """
    values = {field.name: getattr(options, field.name) for field in fields(options) if field.name not in NOT_OURS}
    values["layers"] = options.layers if isinstance(options.layers, str | None) else list(options.layers)
    values["inputs"] = _plain(options.inputs)
    values["convention"] = options.convention if isinstance(options.convention, str) else list(options.convention)
    values["directory"] = None if options.directory is None else str(options.directory)
    values["reduce"] = _by_name(options.reduce)
    values["measures"] = [each.definition.id for each in options.measures]
    return values


def _plain(inputs: Any) -> Any:
    if isinstance(inputs, Mapping):
        return {source: _plain(each) for source, each in inputs.items()}
    return asdict(inputs) if isinstance(inputs, ImageInputs) else inputs


def _by_name(reduce: Reduce | Mapping[str, Reduce]) -> Any:
    if isinstance(reduce, Mapping):
        return {layer: _by_name(each) for layer, each in reduce.items()}
    if callable(reduce):
        raise InputError(f"reduce={reduce!r} is a function, which no configuration can hold: pass 'mean', 'max' ...")
    return reduce


def from_configuration(config: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a callback that a configuration describes.

    Raises:
        InputError: If it describes something else.

    Example:
        >>> from_configuration({"inputs": {"scale": 1.0}})["inputs"].scale
        1.0
    """
    unknown = sorted(config.keys() - {field.name for field in fields(Options)} | config.keys() & set(NOT_OURS))
    if unknown:
        raise InputError(f"the configuration has {unknown}, which BaselineCallback does not take")
    arguments = dict(config)
    if isinstance(arguments.get("inputs"), Mapping):
        arguments["inputs"] = _inputs(arguments["inputs"])
    if "target" in arguments:
        arguments["target"] = _tuple(arguments["target"])
    arguments["measures"] = [_declared(each) for each in arguments.get("measures", ())]
    return arguments


def _inputs(config: Any) -> Any:
    """`ImageInputs`, or what there is of them by kind of pass, or by the name of the image input."""
    if not isinstance(config, Mapping):
        return config
    if config.keys() <= set(SOURCES) or all(isinstance(each, Mapping) for each in config.values()):
        return {source: _inputs(each) for source, each in config.items()}
    try:
        return ImageInputs(**{key: _tuple(value) for key, value in config.items()})
    except TypeError as error:
        raise InputError(f"inputs={config!r} does not describe ImageInputs: {error}") from error


def _declared(id: Any) -> CustomMeasure:
    found = id if isinstance(id, CustomMeasure) else registered(str(id))
    if found is None:
        raise InputError(
            f"measures has {id!r}, which this process has not declared: import the module with its @measure"
        )
    return found


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
