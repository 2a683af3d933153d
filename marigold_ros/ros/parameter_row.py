"""One parameter of the node: its type, its rule, and how ROS is told of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor

from marigold_ros.depth.errors import ConfigError

TYPE_NAMES = {bool: 'bool', int: 'int', float: 'double', str: 'string', tuple: 'string[]'}


def yaml_value(value: Any) -> str:
    """Write a parameter value as YAML does."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return '[' + ', '.join(value) + ']'
    return str(value)


@dataclass(frozen=True)
class Row:
    """
    One parameter.

    Attributes
    ----------
    name : str
        As ROS sees it.
    kind : type
        bool, int, float, str or tuple (of str).
    default : object
        Also what config/depth.yaml says.
    description : str
    unit : str
        Empty where the parameter has none.
    limits : (low, high) or None
        Smallest and largest number allowed.
    choices : tuple
        The only values allowed, unless empty.
    keyword : str
        A word that may stand instead of a value, and is read as None; '' if there is none.
    run_time : bool
        Whether a change takes effect at the next frame, or only at the next configure.
    reason : str
        Why the limits or choices are what they are, told to whoever breaks them.
    """

    name: str
    kind: type
    default: Any
    description: str
    unit: str = ''
    limits: tuple[float, float] | None = None
    choices: tuple[Any, ...] = ()
    keyword: str = ''
    run_time: bool = False
    reason: str = ''

    @property
    def type_name(self) -> str:
        """ROS type in words, with the keyword."""
        return TYPE_NAMES[self.kind] + (f' or {self.keyword}' if self.keyword else '')

    @property
    def rule(self) -> str:
        """Limits or choices in words; empty where there are none."""
        if self.choices:
            return ', '.join(yaml_value(choice) for choice in self.choices)
        return '' if self.limits is None else f'{self.limits[0]:g} to {self.limits[1]:g}'

    def read(self, value: Any) -> Any:
        """
        Check a ROS value and turn it into what Settings holds.

        Raises
        ------
        ConfigError
            If it has the wrong type or breaks the row's limits or choices.
        """
        if self.keyword and value == self.keyword:
            return None
        if self.kind is float and type(value) is int:
            value = float(value)
        if self.kind is tuple and isinstance(value, (list, tuple)):
            value = tuple(value)
        allowed = self.limits is None or (
            isinstance(value, (int, float)) and self.limits[0] <= value <= self.limits[1])
        if type(value) is not self.kind or not allowed or (
                self.choices and value not in self.choices):
            rule = ' '.join(part for part in (self.type_name, self.rule) if part)
            why = f' ({self.reason})' if self.reason else ''
            raise ConfigError(f'`{self.name}` must be {rule}{why}; got {value!r}')
        return value

    def descriptor(self) -> ParameterDescriptor:
        """
        Describe the parameter to `ros2 param`.

        A double is typed dynamically, so that 150 is as good as 150.0.  Where the limits have a
        reason they are not declared as a native range, whose refusal could not tell it.
        """
        descriptor = ParameterDescriptor(
            name=self.name,
            description=self.description + (f' [{self.unit}]' if self.unit else ''),
            dynamic_typing=self.kind is float or bool(self.keyword),
            additional_constraints='; '.join(part for part in (
                self.type_name, self.rule, self.reason,
                '' if self.run_time else 'takes effect at the next configure') if part))
        if self.limits is not None and not self.reason and self.kind is int:
            low, high = (int(limit) for limit in self.limits)
            descriptor.integer_range = [IntegerRange(from_value=low, to_value=high)]
        elif self.limits is not None and not self.reason:
            descriptor.floating_point_range = [FloatingPointRange(
                from_value=float(self.limits[0]), to_value=float(self.limits[1]))]
        return descriptor
