"""Results: the stream's entries in RQ's form, what is kept for how long, and waiting for one."""

from __future__ import annotations

import base64
import pickle
import threading
import time
import zlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis

from greenq.defaults import DEFAULT_FAILURE_TTL, UNSERIALIZABLE_RETURN_VALUE_PAYLOAD
from greenq.exceptions import DeserializationError
from greenq.job import Job, Retry
from greenq.results import Result, decode_exc_string, encode_exc_string, encode_return_value
from greenq.serializers import DefaultSerializer, JSONSerializer
from greenq.store import keys
from tests.helpers import wait_until

STARTED = datetime(2024, 5, 6, 7, 8, 9, 10, tzinfo=UTC)
ENDED = STARTED + timedelta(seconds=1.5)


class Unpicklable:
    def __reduce__(self) -> Any:
        raise RecursionError('endless')


@pytest.fixture
def job(connection: redis.Redis) -> Job:
    return Job.create(len, ('abc',), id='j1', connection=connection)


def latest(job: Job, timeout: float = 0) -> Result:
    result = Result.fetch_latest(job, timeout=timeout)
    assert result is not None
    return result


def only_entry(connection: redis.Redis) -> tuple[bytes, dict[bytes, bytes]]:
    entries: Any = connection.xrange(keys.results('j1'))
    [(entry_id, fields)] = entries
    return entry_id, fields


# ---- encoding ----


def test_values_are_encoded_as_rq_reads_them() -> None:
    assert pickle.loads(base64.b64decode(encode_return_value(DefaultSerializer, {'a': 1}))) == {'a': 1}
    assert base64.b64decode(encode_return_value(JSONSerializer, [1])) == b'[1]'
    assert encode_return_value(DefaultSerializer, None) == b''
    assert zlib.decompress(base64.b64decode(encode_exc_string('☃'))).decode() == '☃'
    assert decode_exc_string(encode_exc_string('☃' * 1000)) == '☃' * 1000
    assert b'\n' not in encode_return_value(DefaultSerializer, 'x' * 1000)


def test_a_false_value_is_a_value() -> None:
    values: list[Any] = [0, '', [], False]
    for value in values:
        assert pickle.loads(base64.b64decode(encode_return_value(DefaultSerializer, value))) == value


@pytest.mark.parametrize('value', [threading.Lock(), Unpicklable(), lambda: 1])
def test_what_cannot_be_serialized_becomes_a_fixed_text(value: Any) -> None:
    encoded = encode_return_value(DefaultSerializer, value)
    assert pickle.loads(base64.b64decode(encoded)) == UNSERIALIZABLE_RETURN_VALUE_PAYLOAD


def test_a_traceback_that_is_no_valid_unicode_is_kept() -> None:
    assert decode_exc_string(encode_exc_string('bad: \udcff')) == 'bad: \\udcff'


# ---- storing and reading ----


def test_a_result_is_stored_and_read(connection: redis.Redis, job: Job) -> None:
    created = Result.create(job, Result.Type.SUCCESSFUL, 10, {'a': 1}, None, 'w1', None, 'e1', STARTED, ENDED)
    entry_id, fields = only_entry(connection)
    assert fields == {
        b'type': b'1',
        b'worker_name': b'w1',
        b'return_value': encode_return_value(DefaultSerializer, {'a': 1}),
        b'execution_id': b'e1',
        b'execution_started_at': str(STARTED.timestamp()).encode(),
        b'execution_ended_at': str(ENDED.timestamp()).encode(),
    }
    result = latest(job)
    assert result == created
    assert result.id == entry_id.decode()
    assert (result.type, result.return_value, result.exc_string) == (Result.Type.SUCCESSFUL, {'a': 1}, None)
    assert (result.worker_name, result.execution_id) == ('w1', 'e1')
    assert (result.execution_started_at, result.execution_ended_at) == (STARTED, ENDED)
    assert abs((datetime.now(UTC) - result.created_at).total_seconds()) < 60
    assert repr(result) == f'Result(id={result.id}, type=SUCCESSFUL)'


def test_old_results_know_nothing_of_executions(connection: redis.Redis, job: Job) -> None:
    connection.xadd(keys.results('j1'), {'type': 2, 'exc_string': encode_exc_string('boom')})
    result = latest(job)
    assert (result.exc_string, result.return_value, result.worker_name) == ('boom', None, '')
    assert {result.execution_id, result.execution_started_at, result.execution_ended_at} == {None}


def test_a_failure(connection: redis.Redis, job: Job) -> None:
    Result.create_failure(job, 10, exc_string='boom', worker_name='w1')
    result = latest(job)
    assert (result.type, result.exc_string, result.worker_name) == (Result.Type.FAILED, 'boom', 'w1')
    assert 0 < connection.ttl(keys.results('j1')) <= 10


@pytest.mark.parametrize(
    ('create', 'kind'),
    [
        (Result.create_retried, Result.Type.RETRIED),
        (Result.create_max_retries_exceeded, Result.Type.MAX_RETRIES_EXCEEDED),
    ],
)
def test_a_returned_retry_is_kept_as_rq_reads_it(
    connection: redis.Redis, job: Job, create: Callable[..., Result], kind: Result.Type
) -> None:
    create(job, 10, Retry(max=3), 'w1', 'e1', STARTED, ENDED)
    result = latest(job)
    assert (result.type, result.execution_id, result.exc_string) == (kind, 'e1', None)
    assert isinstance(result.return_value, Retry)
    _, fields = only_entry(connection)
    assert b'greenq' not in base64.b64decode(fields[b'return_value'])


def test_all_results_newest_first(job: Job) -> None:
    assert (Result.all(job), Result.count(job), Result.fetch_latest(job)) == ([], 0, None)
    created = [Result.create(job, Result.Type.SUCCESSFUL, 10, value) for value in range(3)]
    assert Result.all(job) == job.results() == created[::-1]
    assert Result.count(job) == 3
    assert job.latest_result() == created[-1]
    Result.delete_all(job)
    assert Result.count(job) == 0


def test_a_pipeline_defers_it(connection: redis.Redis, job: Job) -> None:
    with connection.pipeline() as pipeline:
        result = Result.create(job, Result.Type.SUCCESSFUL, 10, 1, pipeline=pipeline)
        assert not result
        assert Result.count(job) == 0
        pipeline.execute()
    assert latest(job).return_value == 1


def test_a_value_that_cannot_be_read_here_spoils_only_itself(job: Job) -> None:
    Result.create(job, Result.Type.SUCCESSFUL, 10, 1)
    unreadable = Result.create(job, Result.Type.SUCCESSFUL, 10, 'x')
    fields: dict[Any, Any] = {'type': 1, 'return_value': base64.b64encode(b'cnot_importable\nX\n.')}
    job.connection.xadd(keys.results('j1'), fields)
    newest, *others = Result.all(job)
    assert [result.return_value for result in others] == ['x', 1]
    assert others[0] == unreadable
    for _ in range(2):
        with pytest.raises(DeserializationError, match=f'The result {newest.id} of job j1 cannot be read'):
            newest.return_value  # noqa: B018


def test_the_serializer_is_the_jobs(connection: redis.Redis) -> None:
    job = Job.create(len, serializer='json', id='j1', connection=connection)
    Result.create(job, Result.Type.SUCCESSFUL, 10, [1])
    assert Result.all(job)[0].return_value == [1]
    assert latest(job).return_value == [1]


# ---- how long they are kept ----


@pytest.mark.parametrize('kind', [kind for kind in Result.Type if kind is not Result.Type.SUCCESSFUL])
def test_what_did_not_succeed_is_not_kept_forever_by_default(
    connection: redis.Redis, job: Job, kind: Result.Type
) -> None:
    Result.create(job, kind, None)
    assert DEFAULT_FAILURE_TTL - 10 < connection.ttl(keys.results('j1')) <= DEFAULT_FAILURE_TTL


def test_ttls(connection: redis.Redis, job: Job) -> None:
    Result.create(job, Result.Type.SUCCESSFUL, 10, 1)
    Result.create(job, Result.Type.SUCCESSFUL, None, 2)
    assert 0 < connection.ttl(keys.results('j1')) <= 10
    Result.create(job, Result.Type.SUCCESSFUL, -1, 3)
    assert connection.ttl(keys.results('j1')) == -1
    Result.create(job, Result.Type.SUCCESSFUL, 0, 4)
    assert Result.fetch_latest(job) is None


def test_a_stream_does_not_grow_without_end(job: Job) -> None:
    for value in range(300):
        Result.create(job, Result.Type.SUCCESSFUL, 10, value)
    # Redis trims a node at a time.
    assert Result.count(job) <= 110
    assert latest(job).return_value == 299


# ---- waiting ----


def test_waiting_ends_with_the_timeout(job: Job) -> None:
    began = time.monotonic()
    assert Result.fetch_latest(job, timeout=0.2) is None
    assert time.monotonic() - began >= 0.2


def test_a_result_that_is_there_is_not_waited_for(job: Job) -> None:
    Result.create(job, Result.Type.SUCCESSFUL, 10, 1)
    Result.create(job, Result.Type.SUCCESSFUL, 10, 2)
    began = time.monotonic()
    assert latest(job, timeout=30).return_value == 2
    assert time.monotonic() - began < 10


def test_waiting_outlasts_the_clients_socket_timeout(connection: redis.Redis, server_url: str) -> None:
    with redis.Redis.from_url(server_url, socket_timeout=0.3) as impatient:
        waiting = Job.create(len, id='j1', connection=impatient)
        found: list[Result | None] = []
        waiter = threading.Thread(target=lambda: found.append(waiting.latest_result(timeout=30)))
        began = time.monotonic()
        waiter.start()
        wait_until(lambda: time.monotonic() - began > 0.5 or found, description='the socket timeout passes')
        assert not found
        Result.create(Job.create(len, id='j1', connection=connection), Result.Type.SUCCESSFUL, 10, 'late')
        waiter.join(10)
        assert [result and result.return_value for result in found] == ['late']
