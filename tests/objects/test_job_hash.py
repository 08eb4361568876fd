"""The table of a job hash's fields: what is read from every form that RQ has written, and what is written."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from greenq.store.job_hash import DATA, EXC_INFO, FIELDS, META, RESULT, Field
from greenq.store.states import JobStatus
from greenq.utils import deflate
from greenq.webhook import Webhook

EVERY_FIELD = (*FIELDS, DATA, META, RESULT, EXC_INFO)
BY_NAME = {field.name: field for field in EVERY_FIELD}
MOMENT = datetime(2024, 5, 6, 7, 8, 9, 10, tzinfo=UTC)

# (field, as stored, as an attribute); each is read and written in this form.
BOTH_WAYS: list[tuple[str, str | bytes, Any]] = [
    ('status', 'scheduled', JobStatus.SCHEDULED),
    ('created_at', '2024-05-06T07:08:09.000010Z', MOMENT),
    ('started_at', '2024-05-06T07:08:09.000010Z', MOMENT),
    ('ended_at', '2024-05-06T07:08:09.000010Z', MOMENT),
    ('last_heartbeat', '2024-05-06T07:08:09.000010Z', MOMENT),
    ('enqueued_at', '2024-05-06T07:08:09.000010Z', MOMENT),
    ('worker_name', 'w1', 'w1'),
    ('group_id', 'g1', 'g1'),
    ('success_callback_name', 'app.done', 'app.done'),
    ('failure_callback_name', 'app.failed', 'app.failed'),
    ('stopped_callback_name', 'app.stopped', 'app.stopped'),
    ('success_callback_timeout', '10', 10),
    ('failure_callback_timeout', '11', 11),
    ('stopped_callback_timeout', '12', 12),
    ('description', 'say(☃)', 'say(☃)'),
    ('origin', 'default', 'default'),
    ('timeout', '180', 180),
    ('result_ttl', '-1', -1),
    ('failure_ttl', '0', 0),
    ('ttl', '43', 43),
    ('retries_left', '0', 0),
    ('retry_intervals', '[1, 2]', [1, 2]),
    ('number_of_retries', '3', 3),
    ('enqueue_at_front_on_retry', '1', True),
    ('repeats_left', '2', 2),
    ('repeat_intervals', '[60]', [60]),
    ('allow_dependency_failures', '0', False),
    ('enqueue_at_front', '1', True),
    ('rate_limit_key', 'api', 'api'),
    ('rate_limit_concurrency', '2', 2),
    ('dependency_ids', '["a", "b"]', ['a', 'b']),
    ('greenq_on_lost', 'fail', 'fail'),
    ('exc_info', deflate(b'Traceback'), 'Traceback'),
    ('data', deflate(b'call'), b'call'),
]


def as_redis_returns(value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


@pytest.mark.parametrize(('name', 'stored', 'value'), BOTH_WAYS, ids=[case[0] for case in BOTH_WAYS])
def test_a_field_is_written_as_it_is_read(name: str, stored: str | bytes, value: Any) -> None:
    field = BY_NAME[name]
    assert field.read({name.encode(): as_redis_returns(stored)}, 'j') == value
    assert field.read({name: stored}, 'j') == value
    fields: dict[str, Any] = {}
    field.write(fields, value)
    assert {key: as_redis_returns(item) for key, item in fields.items()} == {name: as_redis_returns(stored)}


def test_the_cases_above_are_all_fields_that_no_serializer_is_needed_for() -> None:
    assert {case[0] for case in BOTH_WAYS} == set(BY_NAME) - {'meta', 'result', 'webhooks'}


def test_webhooks_are_json() -> None:
    webhook = Webhook('http://example.com/', 'finished')
    fields: dict[str, Any] = {}
    BY_NAME['webhooks'].write(fields, [webhook])
    assert BY_NAME['webhooks'].read(fields, 'j') == [webhook]


@pytest.mark.parametrize(
    ('name', 'stored', 'value'),
    [
        ('timeout', b'1h', 3600),
        ('created_at', b'2012-02-07T22:13:24Z', datetime(2012, 2, 7, 22, 13, 24, tzinfo=UTC)),
        ('exc_info', b'Traceback', 'Traceback'),
        ('data', b'not compressed', b'not compressed'),
    ],
)
def test_older_forms_are_read(name: str, stored: bytes, value: Any) -> None:
    assert BY_NAME[name].read({name.encode(): stored}, 'j') == value


def test_a_single_dependency_of_old_rq_is_read() -> None:
    assert BY_NAME['dependency_ids'].read({b'dependency_id': b'parent'}, 'j') == ['parent']


def test_unset_fields_have_rqs_defaults_and_every_reader_gets_its_own_container() -> None:
    defaults = {field.name: field.read({}, 'j') for field in EVERY_FIELD}
    present = {name: value for name, value in defaults.items() if value is not None}
    created_at = present.pop('created_at')
    assert (datetime.now(UTC) - created_at).total_seconds() < 60
    assert present == {
        'status': JobStatus.CREATED,
        'origin': '',
        'enqueue_at_front_on_retry': False,
        'webhooks': [],
        'dependency_ids': [],
        'meta': {},
    }
    assert META.read({}, 'j') is not META.read({}, 'j')


@pytest.mark.parametrize('field', EVERY_FIELD, ids=lambda field: field.name)
def test_an_empty_field_counts_as_unset(field: Field) -> None:
    if field.name != 'created_at':
        assert field.read({field.key: b''}, 'j') == field.default()


def test_what_is_unset_is_written_as_rq_writes_it() -> None:
    fields: dict[str, Any] = {}
    for field in EVERY_FIELD:
        if field.name not in ('status', 'created_at'):
            field.write(fields, field.default())
    assert fields == dict.fromkeys(
        [
            'started_at',
            'ended_at',
            'last_heartbeat',
            'worker_name',
            'group_id',
            'success_callback_name',
            'failure_callback_name',
            'stopped_callback_name',
        ],
        '',
    )


@pytest.mark.parametrize(
    ('name', 'stored'),
    [
        ('timeout', b'soon'),
        ('result_ttl', b'1.5.2'),
        ('started_at', b'yesterday'),
        ('status', b'asleep'),
        ('retry_intervals', b'[1,'),
        ('description', b'\xff\xfe'),
        ('webhooks', b'[{"url": 1}]'),
    ],
)
def test_a_damaged_field_is_named_with_its_job_and_value(name: str, stored: bytes) -> None:
    with pytest.raises(ValueError, match=f'^Job j1: field {name!r} is damaged: b') as caught:
        BY_NAME[name].read({name.encode(): stored}, 'j1')
    assert repr(stored) in str(caught.value)
    assert '\n' not in str(caught.value)


def test_the_message_about_a_huge_damaged_field_is_short() -> None:
    with pytest.raises(ValueError, match='is damaged') as caught:
        BY_NAME['timeout'].read({b'timeout': b'x' * 100_000}, 'j1')
    assert len(str(caught.value)) < 1000
