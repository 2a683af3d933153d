"""
The part of launch and launch_ros that our launch files use, for tests without them.

Made to the letter of ros2/launch and ros2/launch_ros on Jazzy; a node is remembered instead of
started.
"""

from __future__ import annotations

import importlib.util
import logging
import os
from pathlib import Path
import sys
from types import ModuleType, SimpleNamespace

from ament_index_python.packages import get_package_prefix


class LaunchContext:
    """Arguments, environment and event handlers of a launch."""

    def __init__(self, *, argv=None):
        self.argv = argv or []
        self.launch_configurations = {}
        self.is_shutdown = False
        self._event_handlers = []
        self._stack = []

    def _set_is_shutdown(self, state):
        self.is_shutdown = state


class Action:
    """Something to visit: `execute` returns what is visited next."""

    def execute(self, context):
        return []


class LaunchDescription(Action):
    def __init__(self, entities):
        self.entities = entities

    def execute(self, context):
        return self.entities

    def get_launch_arguments(self):
        """List the declared arguments, also those of included files."""
        found = []
        for each in self.entities:
            if isinstance(each, DeclareLaunchArgument):
                found.append(each)
            if isinstance(each, IncludeLaunchDescription):
                found += each.source.get_launch_description(None).get_launch_arguments()
        return found


class DeclareLaunchArgument(Action):
    def __init__(self, name, *, default_value, description):
        self.name, self.default, self.description = name, default_value, description

    def execute(self, context):
        context.launch_configurations.setdefault(self.name, self.default)
        return []


class LaunchConfiguration:
    def __init__(self, name):
        self.name = name

    def perform(self, context):
        if self.name not in context.launch_configurations:
            raise RuntimeError(f"launch configuration '{self.name}' does not exist")
        return context.launch_configurations[self.name]


class OpaqueFunction(Action):
    def __init__(self, *, function):
        self.execute = function


class SetEnvironmentVariable(Action):
    def __init__(self, name, value):
        self.name, self.value = name, value

    def execute(self, context):
        os.environ[self.name] = self.value
        return []


class PythonLaunchDescriptionSource:
    def __init__(self, path):
        self.path = path

    def get_launch_description(self, context):
        spec = importlib.util.spec_from_file_location('launch_file', self.path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.generate_launch_description()


class IncludeLaunchDescription(Action):
    """Include a file in the scope of the including one."""

    def __init__(self, source, *, launch_arguments=()):
        self.source, self.arguments = source, launch_arguments

    def execute(self, context):
        context.launch_configurations.update(self.arguments)
        return [self.source.get_launch_description(context)]


class GroupAction(Action):
    """Visit actions in a scope of their own, which ends with the group."""

    def __init__(self, actions):
        self.actions = actions

    def execute(self, context):
        def push(context):
            context._stack.append(dict(context.launch_configurations))

        def pop(context):
            context.launch_configurations = context._stack.pop()

        return [OpaqueFunction(function=push), *self.actions, OpaqueFunction(function=pop)]


class PushRosNamespace(Action):
    def __init__(self, namespace):
        self.namespace = namespace

    def execute(self, context):
        outer = context.launch_configurations
        outer['ros_namespace'] = make_namespace_absolute(
            prefix_namespace(outer.get('ros_namespace'), self.namespace))
        return []


class SetParameter(Action):
    def __init__(self, name, value):
        self.pair = name, value

    def execute(self, context):
        outer = context.launch_configurations
        outer['global_params'] = [*outer.get('global_params', []), self.pair]
        return []


class Shutdown(Action):
    def __init__(self, *, reason):
        self.reason = reason


class RegisterEventHandler(Action):
    def __init__(self, event_handler):
        self.event_handler = event_handler

    def execute(self, context):
        context._event_handlers.append(self.event_handler)
        return []


class OnStateTransition:
    def __init__(self, *, entities, matcher, handle_once=False):
        self.entities, self.matches, self.handle_once = entities, matcher, handle_once

    def handle(self, event, context):
        if self.handle_once:
            context._event_handlers.remove(self)
        return self.entities


class StateTransition:
    def __init__(self, *, action, msg):
        self.action, self.goal_state = action, msg.goal_state.label


class Node(Action):
    def __init__(self, **given):
        self.given = given

    def _perform_substitutions(self, context):
        namespace = make_namespace_absolute(prefix_namespace(
            context.launch_configurations.get('ros_namespace'), self.given.get('namespace', '')))
        self.node_name = prefix_namespace(namespace, self.given.get('name', ''))


class LifecycleNode(Node):
    pass


class ExecutableInPackage:
    def __init__(self, executable, package):
        self.executable, self.package = executable, package

    def perform(self, context):
        path = Path(get_package_prefix(self.package), 'lib', self.package, self.executable)
        if not path.is_file():
            raise RuntimeError(f"executable '{self.executable}' not found on the libexec "
                               f"directory '{path.parent}' ")
        return str(path)


def prefix_namespace(base, namespace):
    """Put a namespace before a relative one."""
    if namespace is None or not base or namespace.startswith('/'):
        joined = base if namespace is None else namespace
    else:
        joined = f'{"" if base == "/" else base}/{namespace}'
    return joined if joined in (None, '/') else joined.rstrip('/')


def make_namespace_absolute(namespace):
    """Put a / before a relative namespace."""
    return namespace if namespace is None or namespace.startswith('/') else f'/{namespace}'


def visit_all_entities_and_collect_futures(entity, context):
    """Execute an action and then what it returns, depth first."""
    for each in entity.execute(context) or []:
        visit_all_entities_and_collect_futures(each, context)


def install(monkeypatch):
    """Make this module importable as launch and launch_ros."""
    here = sys.modules[__name__]
    names = ['launch', 'launch.actions', 'launch.launch_description_sources',
             'launch.substitutions', 'launch.utilities', 'launch_ros', 'launch_ros.actions',
             'launch_ros.event_handlers', 'launch_ros.events', 'launch_ros.events.lifecycle',
             'launch_ros.substitutions', 'launch_ros.utilities']
    for name in names:
        module = ModuleType(name)
        module.__dict__.update(vars(here), __name__=name, __path__=[])
        monkeypatch.setitem(sys.modules, name, module)
    sys.modules['launch'].logging = SimpleNamespace(get_logger=logging.getLogger)
    monkeypatch.setitem(sys.modules, 'launch.logging', sys.modules['launch'].logging)
