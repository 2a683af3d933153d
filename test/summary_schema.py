"""Check a summary against the schema that documents it."""

from __future__ import annotations

import re

KINDS = {'int': int, 'number': (int, float), 'string': str, 'bool': bool}


def leaves(value, path=''):
    """Yield every leaf with its path; the items of a list share one."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, f'{path}.{key}' if path else key)
    elif isinstance(value, list):
        for item in value:
            yield from leaves(item, f'{path}[]')
    else:
        yield path, value


def described(path, schema):
    """Find the entry of the schema that a path falls under."""
    for key in schema:
        pattern = re.sub(r'\\<[a-z]+\\>|<[a-zA-Z]+>', '[^.]+', re.escape(key))
        if re.fullmatch(pattern, path):
            return key
    return None


def check_summary(summary, schema):
    """Check that the schema describes every leaf and its type; return the entries that occur."""
    seen = set()
    for path, value in leaves(summary):
        key = described(path, schema)
        assert key is not None, f'{path} is not in the schema'
        seen.add(key)
        kind = schema[key].partition(':')[0]
        if kind != 'any':
            wanted, _, null = kind.partition(' or ')
            assert (value is None and null == 'null') or isinstance(value, KINDS[wanted]), path
    return seen
