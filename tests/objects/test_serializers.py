"""Serializers: bytes as RQ writes them, and RQ's own classes crossing between both packages."""

from __future__ import annotations

import json
import pickle
import pickletools
import sys
import threading
from collections.abc import Callable
from enum import Enum
from types import ModuleType
from typing import Any

import pytest
import rq.callbacks
import rq.exceptions
import rq.job
import rq.repeat
import rq.serializers
import rq.webhook

from greenq.callbacks import Callback
from greenq.exceptions import NoSuchJobError
from greenq.repeat import Repeat
from greenq.retry import Retry
from greenq.serializers import (
    DefaultSerializer,
    JSONSerializer,
    PickleSerializer,
    Serializer,
    resolve_serializer,
)
from greenq.webhook import Webhook

THEIRS: Any = rq.serializers.DefaultSerializer

PAIRS: list[tuple[Callable[[], Any], Callable[[], Any]]] = [
    (lambda: Retry(3, [1, 2], True), lambda: rq.job.Retry(3, [1, 2], True)),
    (lambda: Repeat(2, 5), lambda: rq.repeat.Repeat(2, 5)),
    (lambda: Callback('app.done', 5), lambda: rq.callbacks.Callback('app.done', 5)),
    (
        lambda: Webhook('https://example.com', 'failed', method='POST', headers={'a': 'b'}),
        lambda: rq.webhook.Webhook('https://example.com', 'failed', method='POST', headers={'a': 'b'}),
    ),
    (lambda: NoSuchJobError('gone'), lambda: rq.exceptions.NoSuchJobError('gone')),
]
PAIR_NAMES = ['retry', 'repeat', 'callback', 'webhook', 'error']


class Colour(Enum):
    RED = 1


class Borrowed:
    """A user's class, in a module that merely begins like greenq's."""

    __module__ = 'greenq_tasks.models'


@pytest.mark.parametrize(('ours', 'theirs'), PAIRS, ids=PAIR_NAMES)
def test_rq_loads_what_greenq_writes(ours: Callable[[], Any], theirs: Callable[[], Any]) -> None:
    data = DefaultSerializer.dumps({'value': ours()})
    assert b'greenq' not in data
    loaded = THEIRS.loads(data)['value']
    assert type(loaded) is type(theirs())
    assert (vars(loaded), getattr(loaded, 'args', None)) == (vars(theirs()), getattr(theirs(), 'args', None))


@pytest.mark.parametrize('protocol', range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(('ours', 'theirs'), PAIRS, ids=PAIR_NAMES)
def test_greenq_loads_what_rq_writes(ours: Callable[[], Any], theirs: Callable[[], Any], protocol: int) -> None:
    loaded = DefaultSerializer.loads(pickle.dumps([theirs()], protocol))[0]
    assert type(loaded) is type(ours())
    assert vars(loaded) == vars(ours())


@pytest.mark.parametrize(('ours', 'theirs'), PAIRS, ids=PAIR_NAMES)
def test_greenq_loads_what_it_writes(ours: Callable[[], Any], theirs: Callable[[], Any]) -> None:
    loaded = DefaultSerializer.loads(DefaultSerializer.dumps(ours()))
    assert type(loaded) is type(ours())


def test_classes_cross_as_well_as_instances_and_are_shared_within_a_pickle() -> None:
    retry = Retry(1)
    data = DefaultSerializer.dumps([Retry, retry, retry, Retry(2)])
    cls, first, second, other = pickle.loads(data)
    assert cls is rq.job.Retry
    assert first is second
    assert type(other) is rq.job.Retry
    assert data.count(b'rq.job') == 1


def test_text_that_looks_like_a_module_stays_text() -> None:
    value: list[Any] = ['greenq.retry', 'greenq.tasks.run', 'rq.job', 'crq.job\nRetry\n', Retry]
    loaded = DefaultSerializer.loads(DefaultSerializer.dumps(value))
    assert loaded == value


def test_a_users_module_that_begins_like_greenq_is_untouched(monkeypatch: pytest.MonkeyPatch) -> None:
    package, module = ModuleType('greenq_tasks'), ModuleType('greenq_tasks.models')
    module.Borrowed = Borrowed  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, 'greenq_tasks', package)
    monkeypatch.setitem(sys.modules, 'greenq_tasks.models', module)
    values: list[list[Any]] = [[Borrowed], [Borrowed, Retry]]
    for value in values:
        data = DefaultSerializer.dumps(value)
        assert b'greenq_tasks.models' in data
        assert DefaultSerializer.loads(data) == value


def test_what_only_rq_has_loads_as_rqs() -> None:
    from rq.dependency import Dependency

    assert DefaultSerializer.loads(pickle.dumps(Dependency)).__name__ == 'Dependency'


def test_plain_values_are_byte_for_byte_what_rq_writes() -> None:
    values: list[Any] = [None, ('app.f', None, (1, b'x' * 300), {'a': [1.5]}), Colour.RED, {'deep': [[[]]] * 3}]
    for value in values:
        assert DefaultSerializer.dumps(value) == THEIRS.dumps(value)
    opcodes = pickletools.genops(DefaultSerializer.dumps(Retry(1)))
    assert next(opcodes)[1] == pickle.HIGHEST_PROTOCOL


def test_what_cannot_be_pickled_fails_as_with_pickle() -> None:
    with pytest.raises(TypeError, match='cannot pickle'):
        DefaultSerializer.dumps(threading.Lock())
    with pytest.raises((pickle.PicklingError, AttributeError)):
        DefaultSerializer.dumps(lambda: None)
    with pytest.raises((pickle.PicklingError, TypeError)):
        DefaultSerializer.dumps([Retry(1), threading.Lock()])


def test_garbage_does_not_load() -> None:
    for garbage in (b'', b'no pickle', b'rq.job no pickle'):
        with pytest.raises((pickle.UnpicklingError, EOFError)):
            DefaultSerializer.loads(garbage)


def test_json_speaks_utf8() -> None:
    assert JSONSerializer.dumps({'a': 'é'}, ensure_ascii=False) == '{"a": "é"}'.encode()
    assert JSONSerializer.loads('{"a": "é"}'.encode()) == {'a': 'é'}


class Custom:
    @staticmethod
    def dumps(obj: Any, /) -> bytes:
        return repr(obj).encode()

    @staticmethod
    def loads(data: bytes, /) -> Any:
        return data.decode()


@pytest.mark.parametrize(
    ('given', 'found'),
    [
        (None, DefaultSerializer),
        ('pickle', PickleSerializer),
        ('json', JSONSerializer),
        ('greenq.serializers.JSONSerializer', JSONSerializer),
        (f'{__name__}.Custom', Custom),
        (Custom, Custom),
        (json, json),
    ],
)
def test_serializers_are_found_by_object_alias_or_path(given: Serializer | str | None, found: object) -> None:
    assert resolve_serializer(given) is found


@pytest.mark.parametrize('given', [object, 7, 'os.path'])
def test_what_is_no_serializer_is_refused_by_name(given: Any) -> None:
    with pytest.raises(NotImplementedError, match=r'\(dumps, loads\)') as caught:
        resolve_serializer(given)
    assert repr(given) in str(caught.value)
