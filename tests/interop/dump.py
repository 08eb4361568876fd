"""The database as data that can be compared: what no two runs share is replaced by what it stands for."""

from __future__ import annotations

import base64
import re
import time
import zlib
from datetime import UTC, datetime
from typing import Any

from greenq.utils import as_text

TOLERANCE = 3

_EXECUTION_ID = re.compile(r'\b[0-9a-f]{32}\b')
_ISO = re.compile(r'\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z')


class Near:
    """A time that lies so many seconds ahead; equal to one that is at most `TOLERANCE` away."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Near) and abs(self._seconds - other._seconds) <= TOLERANCE

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f'now{self._seconds:+.0f}s'


def dump(client: Any) -> dict[str, dict[str, Any]]:
    """All of the database but greenq's own keys: key -> type, ttl, content."""
    keys = [key for key in client.scan_iter() if not key.startswith(b'rq:greenq:')]
    return {_EXECUTION_ID.sub('EXECUTION', as_text(key)): _entry(client, key) for key in sorted(keys)}


def _entry(client: Any, key: bytes) -> dict[str, Any]:
    kind = as_text(client.type(key))
    ttl = client.ttl(key)
    read: dict[str, Any] = {
        'string': lambda: _value(client.get(key)),
        'list': lambda: [_value(item) for item in client.lrange(key, 0, -1)],
        'set': lambda: sorted(_value(item) for item in client.smembers(key)),
        'zset': lambda: [(_value(item), _score(score)) for item, score in client.zrange(key, 0, -1, withscores=True)],
        'hash': lambda: _fields(client.hgetall(key)),
        'stream': lambda: [_fields(fields) for _, fields in client.xrange(key)],
    }
    return {'type': kind, 'ttl': ttl if ttl < 0 else Near(ttl), 'content': read[kind]()}


def _fields(raw: dict[bytes, bytes]) -> dict[str, Any]:
    named = {as_text(name): value for name, value in raw.items()}
    return {name: _field(name, value) for name, value in named.items() if not name.startswith('greenq_')}


def _field(name: str, value: bytes) -> Any:
    if name == 'data':
        return zlib.decompress(value)
    if name == 'exc_string':
        return zlib.decompress(base64.b64decode(value)).decode().strip().splitlines()[-1]
    if name in ('pid', 'version', 'total_working_time'):
        return f'some {name}'
    return _value(value)


def _value(value: bytes) -> Any:
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return value
    if _ISO.fullmatch(text):
        moment = datetime.strptime(text, '%Y-%m-%dT%H:%M:%S.%fZ').replace(tzinfo=UTC)
        return Near(moment.timestamp() - time.time())
    if re.fullmatch(r'\d{10}(\.\d+)?', text):
        return Near(float(text) - time.time())
    return _EXECUTION_ID.sub('EXECUTION', text)


def _score(score: float) -> Any:
    return Near(score - time.time()) if 1e9 < score < 1e11 else score
