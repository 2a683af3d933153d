"""Definition of one parameter: type, rule, description, and its ROS descriptor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor

from marigold_ros.depth.errors import ConfigError

TYPE_NAMES = {bool: 'bool', int: 'int', float: 'double', str: 'string', tuple: 'string[]'}


def format_yaml_value(value: Any) -> str:
    """Format a parameter value as YAML."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return '[' + ', '.join(value) + ']'
    return str(value)


@dataclass(frozen=True)
class ParameterRow:
    """
    One row of the parameter table.

    Attributes
    ----------
    name : str
        ROS name.
    kind : type
        bool, int, float, str or tuple (of str).
    default : object
        Default value, also in config/depth.yaml.
    description : str
    unit : str
        Empty if the parameter has none.
    limits : (low, high) or None
        Smallest and largest valid number.
    choices : tuple
        The valid values, or those of each string in a list; empty if there is no such
        restriction.
    keyword : str
        A word that is valid instead of a value and is parsed as None; '' if there is none.
    run_time : bool
        Whether a change takes effect at the next frame instead of the next configure.
    reason : str
        Reason for the rule, or the rest of it, added to the message of a validation error.
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
        """Return the ROS type in words, with the keyword."""
        name = TYPE_NAMES[self.kind]
        return f'{name} or {self.keyword}' if self.keyword else name

    @property
    def rule(self) -> str:
        """Return the limits or choices in words; empty if there are none."""
        if self.choices:
            return ', '.join(format_yaml_value(choice) for choice in self.choices)
        return '' if self.limits is None else f'{self.limits[0]:g} to {self.limits[1]:g}'

    def parse(self, value: Any) -> Any:
        """
        Validate a ROS value and convert it to the value of the Settings field.

        Raises
        ------
        ConfigError
            If its type is wrong or it violates the limits or choices.
        """
        if self.keyword and value == self.keyword:
            return None
        parsed = value
        if self.kind is float and type(value) is int:
            parsed = float(value)
        if self.kind is tuple and isinstance(value, (list, tuple)):
            parsed = tuple(value)
        if not self._allows(parsed):
            rule = ', '.join(part for part in (
                self.type_name, f'one of {self.rule}' if self.choices else self.rule) if part)
            reason = f' ({self.reason})' if self.reason else ''
            raise ConfigError(f'`{self.name}` must be {rule}{reason}; got {value!r}')
        return parsed

    def _allows(self, value: Any) -> bool:
        if type(value) is not self.kind:
            return False
        if isinstance(value, tuple):
            return bool(value) and all(isinstance(each, str) and (
                not self.choices or each in self.choices) for each in value)
        if self.choices and value not in self.choices:
            return False
        return self.limits is None or (
            isinstance(value, (int, float)) and self.limits[0] <= value <= self.limits[1])

    def descriptor(self) -> ParameterDescriptor:
        """
        Build the descriptor that `ros2 param describe` shows.

        A double has dynamic typing, so that an integer such as 150 is valid, too.  Limits with a
        reason are not declared as a ROS range, whose error message could not contain the reason.
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
