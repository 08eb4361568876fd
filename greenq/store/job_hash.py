"""The fields of a job's hash: for each its attribute, its name in RQ's layout, and how a value is read and written.

This table is the only place that knows them. Reading is one field at a time, so that who needs three fields of a
hash pays for three.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Any, NamedTuple, TypeAlias

from greenq.store.states import JobStatus, checked_on_lost
from greenq.utils import as_text, deflate, now, parse_timeout, str_to_date, truncate_long_string, utcformat, utcparse
from greenq.webhook import decode_webhooks, encode_webhooks

RawHash: TypeAlias = Mapping[Any, Any]
"""A hash as Redis returns it; keys and values are bytes or text."""

_LONGEST_VALUE_SHOWN = 80


class Interruption(NamedTuple):
    """One time that a job was cut off, by nothing that it raised or returned; it went back to its queue.

    `cause` is a text. An innocent one, for which a neighbour in the same worker is to blame, does not count when a job
    that was interrupted too often is failed, unless there are very many.
    """

    at: datetime
    worker_name: str
    execution_id: str
    cause: str
    is_innocent: bool


class Written(Enum):
    """When a field is part of the hash that a job is stored as."""

    ALWAYS = 'always'  # empty when unset
    IF_SET = 'if set'  # anything but None
    IF_TRUE = 'if true'


@dataclass(frozen=True, eq=False)
class Codec:
    """How a value becomes a hash field, and back."""

    decode: Callable[[Any], Any]
    encode: Callable[[Any], Any]


@dataclass(eq=False)
class Field:
    """One field. `default` makes the attribute's value when the hash has none; `older` is where old hashes have it."""

    attribute: str
    name: str
    codec: Codec
    written: Written
    default: Callable[[], Any]
    older: str = ''
    key: bytes = field(init=False)
    always: bool = field(init=False)

    def __post_init__(self) -> None:
        self.key = self.name.encode()
        self.always = self.written is Written.ALWAYS

    def find(self, raw: RawHash) -> bytes | str | None:
        """The stored value, None when there is none or it is empty."""
        value = raw.get(self.key) or raw.get(self.name)
        if not value and self.older:
            value = raw.get(self.older.encode()) or raw.get(self.older)
        return value or None

    def read(self, raw: RawHash, job_id: str | None) -> Any:
        """The attribute's value. ValueError, naming all that is needed to find it, if what is stored makes no sense."""
        value = raw.get(self.key) or self.find(raw)
        if value is None:
            return self.default()
        try:
            return self.codec.decode(value)
        except Exception as error:
            shown = truncate_long_string(repr(value), _LONGEST_VALUE_SHOWN)
            raise ValueError(
                f'Job {job_id}: field {self.name!r} is damaged: {shown}; correct it or delete the job'
            ) from error

    def write(self, fields: dict[str, Any], value: Any) -> None:
        """Add the attribute's value to the fields of a hash."""
        if value or (self.written is Written.IF_SET and value is not None):
            fields[self.name] = self.codec.encode(value)
        elif self.always:
            fields[self.name] = ''


def _same(value: Any) -> Any:
    return value


def _none() -> Any:
    return None


def _decompress(value: bytes | str) -> bytes:
    """Zlib data inflated; anything else as it is, because that is how old RQ stored it."""
    data = value.encode() if isinstance(value, str) else value
    try:
        return zlib.decompress(data)
    except zlib.error:
        return data


def _decode_flag(value: bytes | str) -> bool:
    return bool(int(value))


def _decode_timeout(value: bytes | str) -> int | None:
    return parse_timeout(as_text(value))


def _decode_ids(value: bytes | str) -> list[str]:
    text = as_text(value)
    # The older field is a single bare id, and an id has no bracket.
    return [as_text(item) for item in json.loads(text)] if text.startswith('[') else [text]


def _decode_exc_info(value: bytes | str) -> str:
    return as_text(_decompress(value))


def _encode_exc_info(value: Any) -> bytes:
    return deflate(str(value).encode())


def _decode_status(value: bytes | str) -> JobStatus:
    return JobStatus(as_text(value))


def _encode_status(value: JobStatus | str) -> str:
    return JobStatus(value).value


def _decode_interruptions(value: bytes | str) -> list[Interruption]:
    return [
        Interruption(
            utcparse(note['at']),
            note.get('worker', ''),
            note.get('execution', ''),
            note.get('cause', ''),
            bool(note.get('innocent')),
        )
        for note in json.loads(value)
    ]


_TEXT = Codec(as_text, _same)
_INTEGER = Codec(int, _same)
_FLAG = Codec(_decode_flag, int)
_TIME = Codec(str_to_date, utcformat)
_TIMEOUT = Codec(_decode_timeout, _same)
_INTERVALS = Codec(json.loads, json.dumps)
_IDS = Codec(_decode_ids, json.dumps)
_STATUS = Codec(_decode_status, _encode_status)
_WEBHOOKS = Codec(decode_webhooks, encode_webhooks)
_EXC_INFO = Codec(_decode_exc_info, _encode_exc_info)
_ON_LOST = Codec(as_text, checked_on_lost)
_INTERRUPTIONS = Codec(_decode_interruptions, _same)


def _always(attribute: str, codec: Codec = _TEXT, *, name: str = '', default: Callable[[], Any] = _none) -> Field:
    return Field(attribute, name or attribute, codec, Written.ALWAYS, default)


def _if_set(attribute: str, codec: Codec = _INTEGER, *, name: str = '') -> Field:
    return Field(attribute, name or attribute, codec, Written.IF_SET, _none)


def _if_true(
    attribute: str,
    codec: Codec = _TEXT,
    *,
    name: str = '',
    default: Callable[[], Any] = _none,
    older: str = '',
) -> Field:
    return Field(attribute, name or attribute, codec, Written.IF_TRUE, default, older)


#: What the serializer of the job reads and writes: the call, the user's metadata, and a result as old RQ stored it.
DATA = Field('_data', 'data', Codec(_decompress, deflate), Written.IF_SET, _none)
META = Field('meta', 'meta', Codec(_same, _same), Written.IF_TRUE, dict)
RESULT = Field('_result', 'result', Codec(_same, _same), Written.IF_SET, _none)

#: Not written any more unless somebody sets it; read from the hashes of old jobs.
EXC_INFO = Field('_exc_info', 'exc_info', _EXC_INFO, Written.IF_SET, _none)

#: Written by the scripts only: a producer that saves its copy of a job must not bring old ones back.
INTERRUPTIONS = Field('interruptions', 'greenq_interruptions', _INTERRUPTIONS, Written.IF_SET, list)

#: Every other field.
FIELDS: tuple[Field, ...] = (
    _always('_status', _STATUS, name='status', default=lambda: JobStatus.CREATED),
    _always('created_at', _TIME, default=now),
    _always('started_at', _TIME),
    _always('ended_at', _TIME),
    _always('last_heartbeat', _TIME),
    _always('worker_name'),
    _always('group_id'),
    _always('_success_callback_name', name='success_callback_name'),
    _always('_failure_callback_name', name='failure_callback_name'),
    _always('_stopped_callback_name', name='stopped_callback_name'),
    _if_set('_success_callback_timeout', name='success_callback_timeout'),
    _if_set('_failure_callback_timeout', name='failure_callback_timeout'),
    _if_set('_stopped_callback_timeout', name='stopped_callback_timeout'),
    _if_set('description', _TEXT),
    _if_set('enqueued_at', _TIME),
    _if_set('timeout', _TIMEOUT),
    _if_set('result_ttl'),
    _if_set('failure_ttl'),
    _if_set('retries_left'),
    _if_set('retry_intervals', _INTERVALS),
    _if_set('number_of_retries'),
    _if_set('repeats_left'),
    _if_set('repeat_intervals', _INTERVALS),
    _if_set('allow_dependency_failures', _FLAG),
    _if_set('enqueue_at_front', _FLAG),
    _if_true('origin', default=str),
    _if_true('ttl', _INTEGER),
    _if_true('enqueue_at_front_on_retry', _FLAG, default=bool),
    _if_true('rate_limit_key'),
    _if_true('rate_limit_concurrency', _INTEGER),
    _if_true('on_lost', _ON_LOST, name='greenq_on_lost'),
    _if_true('webhooks', _WEBHOOKS, default=list),
    _if_true('_dependency_ids', _IDS, name='dependency_ids', default=list, older='dependency_id'),
)

#: By attribute: the field's name, its encoding (None for values that are stored as they are), whether 0 and '' are too.
_WRITTEN = {
    field.attribute: (
        field.name,
        None if field.codec.encode is _same else field.codec.encode,
        field.written is Written.IF_SET,
    )
    for field in FIELDS
}
_DEFAULTED = tuple(field for field in FIELDS if field.always and field.default())
#: The fields of a job's hash that are empty until something happens.
EMPTY = {field.name: '' for field in FIELDS if field.always and field not in _DEFAULTED}


def of_new_job(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The hash of a job that was not read from one, from those of its attributes that were set."""
    fields: dict[str, Any] = dict(EMPTY)
    for attribute, value in attributes.items():
        if value is not None and (written := _WRITTEN.get(attribute)):
            name, encode, even_if_false = written
            if value or even_if_false:
                fields[name] = value if encode is None else encode(value)
    for defaulted in _DEFAULTED:
        if defaulted.name not in fields:
            defaulted.write(fields, defaulted.default())
    return fields
