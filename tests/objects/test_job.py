"""Jobs: creating, storing and reading them, what they call, and what one can ask of them."""

from __future__ import annotations

import asyncio
import json
import pickle
import threading
import zlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis

from greenq.callbacks import Callback
from greenq.exceptions import DeserializationError, InvalidJobOperation, NoSuchJobError, UnserializableError
from greenq.job import (
    Dependency,
    Interruption,
    Job,
    JobStatus,
    Retry,
    cancel_job,
    get_current_job,
    parse_job_id,
    requeue_job,
    validate_job_id,
)
from greenq.queue import Queue
from greenq.results import Result
from greenq.serializers import DefaultSerializer, JSONSerializer
from greenq.store import keys, membership, transitions
from greenq.webhook import Webhook

PATH = 'tests.objects.test_job'
MOMENT = datetime(2024, 5, 6, 7, 8, 9, 10, tzinfo=UTC)


def add(a: int, b: int = 0) -> int:
    return a + b


def whoami() -> str | None:
    job = get_current_job()
    return job.id if job else None


async def whoami_later() -> str | None:
    await asyncio.sleep(0)
    return whoami()


def count_to_three() -> Iterator[int]:
    yield from (1, 2, 3)


def fail() -> None:
    raise RuntimeError('on purpose')


class Account:
    def __init__(self, balance: int) -> None:
        self.balance = balance

    def __bool__(self) -> bool:
        return self.balance > 0

    def withdraw(self, amount: int) -> int:
        return self.balance - amount

    def __call__(self) -> int:
        return self.balance


class StrictJob(Job):
    """As applications subclass it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.tenant = 'none'


def stored(job: Job) -> dict[bytes, bytes]:
    """What `HGETALL` would return for a job."""
    return {
        name.encode(): value if isinstance(value, bytes) else str(value).encode()
        for name, value in job.to_dict().items()
    }


def read_back(job: Job) -> Job:
    return Job.from_hash(job.id, stored(job), None)


# ---- creating ----


def test_a_new_job_knows_its_call_and_nothing_else() -> None:
    job = Job.create(add, (1,), {'b': 2})
    assert (job.func, job.func_name, job.instance) == (add, f'{PATH}.add', None)
    assert (job.args, job.kwargs) == ((1,), {'b': 2})
    assert job.description == f'{PATH}.add(1, b=2)'
    assert job.get_status(refresh=False) is JobStatus.CREATED
    assert job.origin == ''
    assert (job.meta, job.webhooks, job._dependency_ids) == ({}, [], [])
    assert {job.enqueued_at, job.started_at, job.ended_at, job.timeout, job.ttl, job.result_ttl} == {None}
    assert job.redis_server_version is None


def test_ids_are_made_up_once_and_checked_when_given() -> None:
    job = Job.create(add)
    assert job.id == job.id
    assert job.id != Job.create(add).id
    assert Job.create(add, id='my_job-1').id == 'my_job-1'
    for wrong in ('', 'a b', 'a:b', 'a\n', 'ü'):
        with pytest.raises(ValueError, match='must only contain letters') as caught:
            Job.create(add, id=wrong)
        assert repr(wrong) in str(caught.value)
    with pytest.raises(TypeError, match='must be a string, not int: 12'):
        validate_job_id(12)  # type: ignore[arg-type]


def test_arguments_by_name_must_be_a_list_and_a_dict() -> None:
    with pytest.raises(TypeError, match="args must be a list or tuple, not 'text'"):
        Job.create(add, args='text')  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="kwargs must be a dict, not 'text'"):
        Job.create(add, kwargs='text')  # type: ignore[arg-type]
    with pytest.raises(TypeError, match='multiple values'):
        Job.create(add, (1,), args=(2,))
    with pytest.raises(TypeError, match='42'):
        Job.create(42)  # type: ignore[arg-type]


def test_a_bare_string_in_second_place_is_one_argument() -> None:
    assert Job.create(len, 'http://nvie.com').args == ('http://nvie.com',)
    assert Job.create(len, 'http://nvie.com', id='my_job_id').id == 'my_job_id'


def test_positions_are_those_of_rq(connection: redis.Redis) -> None:
    job = Job.create(add, [1], {'b': 1}, connection, 10, 20, JobStatus.QUEUED, 'adds', 'parent', 30)
    assert (job.args, job.kwargs, job.connection, job.result_ttl, job.ttl) == ([1], {'b': 1}, connection, 10, 20)
    assert (job._status, job.description, job._dependency_ids, job.timeout) == (
        JobStatus.QUEUED,
        'adds',
        ['parent'],
        30,
    )


def test_times_are_parsed() -> None:
    job = Job.create(add, timeout='1h', ttl='2m', result_ttl='3s', failure_ttl='4')
    assert (job.timeout, job.ttl, job.result_ttl, job.failure_ttl) == (3600, 120, 3, 4)
    assert job.get_ttl(9) == 120
    assert job.get_result_ttl(9) == 3
    plain = Job.create(add)
    assert (plain.get_ttl(), plain.get_ttl(9), plain.get_result_ttl(9)) == (None, 9, 9)


@pytest.mark.parametrize('func', [Account(3).withdraw, f'{PATH}.add', Account(0).withdraw])
def test_functions_are_found_again(func: Any) -> None:
    job = read_back(Job.create(func, (1,)))
    assert job.perform() == (func(1) if callable(func) else 1)


def test_a_callable_object_is_called() -> None:
    job = read_back(Job.create(Account(3)))
    assert job.func_name == '__call__'
    assert job.perform() == 3


def test_a_function_that_is_gone_is_a_value_error() -> None:
    with pytest.raises(ValueError, match=f'Invalid attribute name: {PATH}.gone'):
        Job.create(f'{PATH}.gone').func  # noqa: B018


def test_callbacks_are_stored_by_name_and_imported_once() -> None:
    job = read_back(Job.create(add, on_success=Callback(whoami, timeout='10'), on_failure=Callback('print')))
    assert job.success_callback is not None
    assert job.success_callback.__name__ == 'whoami'
    assert job.failure_callback is print
    assert job.stopped_callback is None
    timeouts = (job.success_callback_timeout, job.failure_callback_timeout, job.stopped_callback_timeout)
    assert timeouts == (10, 60, 60)


def test_bare_callbacks_are_deprecated() -> None:
    with pytest.warns(DeprecationWarning, match='on_stopped'):
        job = Job.create(add, on_stopped=print)
    assert job.stopped_callback is print


def test_webhooks_must_be_webhooks() -> None:
    webhook = Webhook('http://example.com/', 'failed')
    assert read_back(Job.create(add, webhooks=[webhook])).webhooks == [webhook]
    with pytest.raises(TypeError, match='sequence of Webhook instances'):
        Job.create(add, webhooks=['http://example.com/'])  # type: ignore[list-item]


def test_damaged_webhooks_are_logged_and_the_job_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    raw = stored(Job.create(add, (1,))) | {b'webhooks': b'[{]'}
    job = Job.from_hash('j1', raw, None)
    assert job.webhooks == []
    assert job.perform() == 1
    assert 'Job j1: failed to deserialize webhooks' in caplog.text


def test_retry_sets_the_counters() -> None:
    job = read_back(Job.create(add, retry=Retry(max=3, interval=[1, 2], enqueue_at_front=True)))
    assert (job.retries_left, job.retry_intervals, job.enqueue_at_front_on_retry) == (3, [1, 2], True)
    assert job.should_retry
    assert not Job.create(add).should_retry


@pytest.mark.parametrize(('left', 'interval'), [(5, 1), (3, 1), (2, 2), (1, 3)])
def test_retry_intervals_are_counted_from_the_end(left: int, interval: int) -> None:
    job = Job.create(add, retry=Retry(max=3, interval=[1, 2, 3]))
    job.retries_left = left
    assert job.get_retry_interval() == interval


def test_at_front() -> None:
    job = Job.create(add, retry=Retry(max=1, enqueue_at_front=True))
    assert not job.should_enqueue_at_front()
    job.ended_at = MOMENT
    assert job.should_enqueue_at_front()
    assert Job.create(add, depends_on=Dependency('a', enqueue_at_front=True)).should_enqueue_at_front()


def test_dependencies_in_every_form() -> None:
    a, b = Job.create(add, id='a'), Job.create(add, id='b')
    forms: list[Any] = [
        ['a', 'b'],
        ('a', b),
        [a, b],
        Dependency(['a', 'b']),
        Dependency((a, b)),
        [Dependency(a), 'b'],
        [Dependency('a'), Dependency([b])],
    ]
    for form in forms:
        assert read_back(Job.create(add, depends_on=form))._dependency_ids == ['a', 'b']
    assert Job.create(add, depends_on=a)._dependency_id == 'a'
    assert Job.create(add)._dependency_id is None


def test_the_terms_of_one_dependency_hold_for_all() -> None:
    job = read_back(Job.create(add, depends_on=[Dependency('a', allow_failure=True), Dependency('b')]))
    assert (job.allow_dependency_failures, job.enqueue_at_front) == (True, False)
    plain = read_back(Job.create(add, depends_on='a'))
    assert (plain.allow_dependency_failures, plain.enqueue_at_front) == (None, None)


def test_only_jobs_and_ids_can_be_depended_on() -> None:
    for wrong in ([], [1], ['a', None]):
        with pytest.raises(ValueError, match='jobs: '):
            Dependency(wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match='got dict'):
        Job.create(add, depends_on=[{'id': 'a'}])  # type: ignore[list-item]


# ---- the hash ----


def test_a_stored_job_has_the_fields_of_rq_and_no_others() -> None:
    job = Job.create(add, (1,), id='j1', origin='default', timeout=5)
    fields = job.to_dict()
    assert set(fields) == {
        'created_at',
        'data',
        'description',
        'ended_at',
        'failure_callback_name',
        'group_id',
        'last_heartbeat',
        'origin',
        'started_at',
        'status',
        'stopped_callback_name',
        'success_callback_name',
        'timeout',
        'worker_name',
    }
    assert pickle.loads(zlib.decompress(fields['data'])) == (f'{PATH}.add', None, (1,), {})
    assert fields['status'] == 'created'
    assert type(fields['status']) is str


def test_everything_survives_a_round_trip() -> None:
    job = Job.create(
        add,
        (1, 2),
        timeout=1,
        ttl=2,
        result_ttl=3,
        failure_ttl=4,
        description='adds',
        origin='high',
        meta={'a': [1]},
        group_id='g',
        retry=Retry(max=2, interval=[7, 8]),
        depends_on=Dependency(['a', 'b'], allow_failure=True),
        on_success=Callback(add),
        webhooks=[Webhook('http://example.com/', 'finished')],
        status=JobStatus.DEFERRED,
    )
    job.enqueued_at = job.started_at = job.ended_at = job.last_heartbeat = MOMENT
    job.worker_name = 'w1'
    job.number_of_retries, job.repeats_left, job.repeat_intervals = 1, 2, [3]
    job.rate_limit_key, job.rate_limit_concurrency = 'api', 5
    again = read_back(job)
    assert again.to_dict() == job.to_dict()
    assert again.to_dict()['dependency_id'] == 'a'
    assert (again.enqueued_at, again.worker_name, again.has_rate_limit) == (MOMENT, 'w1', True)


def test_reading_a_job_decodes_nothing_until_asked() -> None:
    raw = stored(Job.create(add, (1,), timeout=5)) | {b'started_at': b'nonsense', b'meta': b'nonsense'}
    job = Job.from_hash('j1', raw, None)
    assert job.perform() == 1
    assert job.timeout == 5
    assert not {'started_at', 'meta', 'created_at', 'description'} & set(vars(job))
    with pytest.raises(ValueError, match="Job j1: field 'started_at' is damaged: b'nonsense'"):
        job.started_at  # noqa: B018


def test_a_field_is_decoded_once_and_is_then_a_plain_attribute() -> None:
    job = read_back(Job.create(add, meta={'a': 1}))
    job.meta['b'] = 2
    assert job.meta == {'a': 1, 'b': 2}
    assert vars(job)['meta'] is job.meta
    assert read_back(job).meta == {'a': 1, 'b': 2}


def test_a_set_attribute_wins_over_the_hash() -> None:
    job = read_back(Job.create(add, timeout=5))
    job.timeout = 7
    assert job.timeout == 7
    assert read_back(job).timeout == 7


def test_text_hashes_are_read_too() -> None:
    job = Job.create(add, (1,), timeout=5, description='adds')
    raw = {name: value if isinstance(value, bytes) else str(value) for name, value in job.to_dict().items()}
    again = Job.from_hash(job.id, raw, None)
    assert (again.timeout, again.description, again.perform()) == (5, 'adds', 1)


def test_restoring_forgets_what_was_known_but_not_what_was_just_computed() -> None:
    job = Job.create(add, (1,), timeout=5, meta={'a': 1}, on_success=Callback(add))
    assert job.success_callback is not None
    assert job.perform() == 1
    job.restore(stored(Job.create(add, (2,))))
    assert (job.timeout, job.meta, job.args) == (None, {}, (2,))
    assert job.success_callback is None
    assert job._result == 1


def test_a_hash_without_data_is_no_job() -> None:
    with pytest.raises(NoSuchJobError, match=r'hash of job j1 has no data; its fields: created_at, status$'):
        Job.from_hash('j1', {b'status': b'queued', b'created_at': b''}, None)


def test_ids_of_old_queues_need_not_be_what_is_allowed_now() -> None:
    assert Job.from_hash('user.12', stored(Job.create(add)), None).id == 'user.12'


def test_a_subclass_is_constructed() -> None:
    job = StrictJob.from_hash('j1', stored(Job.create(add)), None, DefaultSerializer)
    assert isinstance(job, StrictJob)
    assert job.tenant == 'none'


@pytest.mark.parametrize('data', [b'this is no pickle', zlib.compress(b'nor this'), zlib.compress(pickle.dumps(1))])
def test_unreadable_data_is_a_deserialization_error_for_every_part(data: bytes) -> None:
    job = Job.from_hash('j1', {b'data': data}, None)
    for part in ('func_name', 'instance', 'args', 'kwargs', 'func', '_args'):
        with pytest.raises(DeserializationError, match=r'^Job j1: field data cannot be read with DefaultSerializer: '):
            getattr(job, part)
    with pytest.raises(DeserializationError):
        job.perform()


def test_a_job_without_a_call_cannot_be_stored() -> None:
    job = Job('j1')
    with pytest.raises(DeserializationError, match='job j1 has no function'):
        job.func  # noqa: B018
    with pytest.raises(ValueError, match='Cannot build the job data: job j1'):
        job.to_dict()


def test_the_call_follows_from_data_and_data_from_the_call() -> None:
    job = Job('j1')
    job.data = pickle.dumps(('operator.add', None, (1, 2), {}))
    assert (job.func_name, job._func_name, job.args, job.perform()) == ('operator.add', 'operator.add', (1, 2), 3)
    job.args = (3, 4)
    assert pickle.loads(job.data) == ('operator.add', None, (3, 4), {})
    fresh = Job('j2')
    fresh.func_name = 'foo'
    assert pickle.loads(fresh.data) == ('foo', None, (), {})


def test_changing_one_part_of_a_stored_call_keeps_the_others() -> None:
    job = read_back(Job.create(add, (1,), {'b': 2}))
    job.func_name = 'operator.sub'
    job.kwargs = {}
    assert pickle.loads(job.data) == ('operator.sub', None, (1,), {})


def test_json_jobs() -> None:
    job = Job.create(add, (1,), {'b': 2}, serializer='json', meta={'a': 1})
    fields = job.to_dict()
    assert json.loads(zlib.decompress(fields['data'])) == [f'{PATH}.add', None, [1], {'b': 2}]
    assert json.loads(fields['meta']) == {'a': 1}
    assert Job.from_hash('j1', stored(job), None, JSONSerializer).perform() == 3


@pytest.mark.parametrize(
    ('job', 'words'),
    [
        (lambda: Job.create(add, (1, threading.Lock())), [f'{PATH}.add', 'argument 1 (lock)', 'pickle']),
        (lambda: Job.create(add, (1,), {'b': lambda: 1}), [f'{PATH}.add', "argument 'b' (function)"]),
        (lambda: Job.create(add, ({1},), serializer='json'), [f'{PATH}.add', 'argument 0 (set)', 'JSONSerializer']),
    ],
)
def test_arguments_that_cannot_be_serialized_are_named(job: Any, words: list[str]) -> None:
    for expected in (TypeError, pickle.PicklingError, UnserializableError):
        with pytest.raises(expected) as caught:
            job().to_dict()
    message = str(caught.value)
    assert '\n' not in message
    assert all(word in message for word in words), message


def test_meta_that_cannot_be_serialized_is_named(connection: redis.Redis) -> None:
    job = Job.create(add, id='j1', meta={'a': 1, 'lock': threading.Lock()}, connection=connection)
    with pytest.raises(UnserializableError, match=r"^Job j1: meta 'lock' \(lock\) cannot be serialized"):
        job.save_meta()


def test_an_error_of_the_users_own_is_left_as_it_is() -> None:
    class Odd:
        def __reduce__(self) -> Any:
            raise KeyError('mine')

    with pytest.raises(KeyError, match='mine'):
        Job.create(add, (Odd(),)).to_dict()


def test_meta_that_cannot_be_read_here_is_written_back_unchanged() -> None:
    unreadable = b'cnot_an_importable_module\nOwner\n.'
    raw = stored(Job.create(add)) | {b'meta': unreadable}
    job = Job.from_hash('j1', raw, None)
    assert job.to_dict()['meta'] == unreadable
    assert job.meta == {'unserialized': unreadable}
    assert job.to_dict()['meta'] == unreadable
    job.meta['new'] = 1
    assert pickle.loads(job.to_dict()['meta']) == {'unserialized': unreadable, 'new': 1}
    assert 'meta' not in job.to_dict(include_meta=False)


def test_a_submission_is_the_hash_without_its_status() -> None:
    job = Job.create(add, ttl=9, depends_on=Dependency('a', allow_failure=True))
    job.rate_limit_key, job.rate_limit_concurrency = 'api', 2
    submission = job.to_submission(at_front=True, unique=True)
    fields = job.to_dict()
    del fields['status']
    assert submission == transitions.Submission(job.id, fields, True, 9, True, ['a'], True, ('api', 2))
    assert Job.create(add).to_submission().rate_limit is None


def test_equality_and_text() -> None:
    job = Job.create(add, (1,), id='j1')
    assert job == Job('j1')
    assert job != Job('j2')
    assert len({job, Job('j1')}) == 1
    assert str(job) == f'<Job j1: {PATH}.add(1)>'
    assert repr(job) == "Job('j1', enqueued_at=None)"


def test_keys_are_those_of_rq() -> None:
    job = Job('j1')
    prefix = Job.redis_job_namespace_prefix
    assert (job.key, job.dependents_key) == (f'{prefix}j1', f'{prefix}j1:dependents')
    assert job.dependencies_key == f'{prefix}:j1:dependencies'
    assert parse_job_id('j1:e1') == parse_job_id('j1') == 'j1'


# ---- running ----


def test_the_current_job_is_known_while_it_runs() -> None:
    assert get_current_job() is None
    assert Job.create(whoami, id='j1').perform() == 'j1'
    assert Job.create(whoami_later, id='j2').perform() == 'j2'
    with pytest.raises(RuntimeError, match='on purpose'):
        Job.create(fail).perform()
    assert get_current_job() is None


def test_arguments_of_get_current_job_are_deprecated(connection: redis.Redis) -> None:
    with pytest.warns(DeprecationWarning, match='connection argument'):
        assert get_current_job(connection) is None


def test_a_generator_is_a_result_and_no_coroutine() -> None:
    assert list(Job.create(count_to_three).perform()) == [1, 2, 3]


def test_how_a_coroutine_is_run_can_be_overridden() -> None:
    class LoopJob(Job):
        def _run_coroutine(self, coroutine: Any) -> Any:
            coroutine.close()
            return 'elsewhere'

    assert LoopJob.create(whoami_later).perform() == 'elsewhere'
    assert LoopJob.create(add, (1,)).perform() == 1


# ---- in Redis ----


@pytest.fixture
def job(connection: redis.Redis) -> Job:
    """A stored job that no queue knows."""
    created = Job.create(add, (1,), id='j1', origin='default', connection=connection)
    created.save()
    return created


@pytest.fixture
def count_sends(connection: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Returns how often clients have written to their sockets."""
    connection_class = connection.connection_pool.connection_class
    send = connection_class.send_packed_command
    sends: list[None] = []

    def counting(self: Any, *args: Any, **kwargs: Any) -> Any:
        sends.append(None)
        return send(self, *args, **kwargs)

    monkeypatch.setattr(connection_class, 'send_packed_command', counting)
    return lambda: len(sends)


def enqueue(connection: redis.Redis, *jobs: Job, push: bool = True) -> list[str]:
    return transitions.enqueue(connection, 'default', [job.to_submission() for job in jobs], push=push)


def test_saving_and_fetching(connection: redis.Redis, job: Job) -> None:
    fetched = Job.fetch('j1', connection)
    assert fetched == job
    assert fetched.perform() == 1
    assert Job.fetch('j1:some-execution', connection=connection) == job
    assert Job.exists('j1', connection)
    assert not Job.exists('j2', connection)
    with pytest.raises(NoSuchJobError, match='j2'):
        Job.fetch('j2', connection)


def test_the_configured_connection_is_used_when_none_is_given(job: Job) -> None:
    assert Job.fetch('j1').perform() == 1
    assert Job.exists('j1')
    assert [found and found.id for found in Job.fetch_many(['j1'])] == ['j1']
    other = Job.create(add, id='j2')
    other.save()
    assert Job.fetch('j2') == other


def test_fetching_many_is_one_round_trip(connection: redis.Redis, job: Job, count_sends: Callable[[], int]) -> None:
    before = count_sends()
    found = Job.fetch_many(['j1', 'gone', 'j1:execution'], connection)
    assert count_sends() - before == 1
    assert found == [job, None, job]
    assert Job.fetch_many([], connection) == []


def test_a_damaged_job_among_many_is_passed_over(connection: redis.Redis, job: Job) -> None:
    connection.hset(keys.job('damaged'), 'status', 'queued')
    assert Job.fetch_many(['damaged', 'j1'], connection) == [None, job]


# ---- interruptions ----


def interrupt(connection: redis.Redis, job: Job, cause: str, *, worker: str = 'w') -> None:
    transitions.begin(connection, worker, job.id, 'x', 'work', lifetime=60)
    transitions.release(connection, worker, [(job.id, 'x', 'work')], cause=cause)


@pytest.fixture
def queued(connection: redis.Redis) -> Job:
    return Queue('work', connection=connection).enqueue(add, 1)


def test_a_job_knows_what_interrupted_it(connection: redis.Redis, queued: Job) -> None:
    interrupt(connection, queued, 'shutdown')
    transitions.begin(connection, 'w2', queued.id, 'y', 'work', lifetime=60)
    membership.report_death(connection, 'w2', culprit='neighbour', verdict='suspect', cause='it crashed')
    membership.recover_lost(connection, 'rescuer')
    assert queued.interruptions == [], 'it has not looked since'
    queued.refresh()
    first, second = queued.interruptions
    assert first == Interruption(first.at, 'w', 'x', 'shutdown', False)
    assert second == Interruption(second.at, 'w2', 'y', 'it crashed', True)
    assert first.at <= second.at <= datetime.now(UTC)


def test_notes_of_an_older_version_have_no_cause(connection: redis.Redis, queued: Job) -> None:
    note = {'at': '2026-01-01T00:00:00.000000Z', 'worker': 'w', 'execution': 'x'}
    connection.hset(queued.key, 'greenq_interruptions', json.dumps([note]))
    queued.refresh()
    assert queued.interruptions == [Interruption(datetime(2026, 1, 1, tzinfo=UTC), 'w', 'x', '', False)]


def test_poison_keeps_its_interruptions_until_it_is_requeued(connection: redis.Redis, queued: Job) -> None:
    for _ in range(3):
        interrupt(connection, queued, 'it crashed')
    poison = Job.fetch(queued.id, connection)
    assert poison.is_failed and [item.cause for item in poison.interruptions] == ['it crashed'] * 3
    poison.requeue()
    poison.refresh()
    assert poison.is_queued and poison.interruptions == []


def test_saving_an_old_copy_brings_no_interruptions_back(connection: redis.Redis, queued: Job) -> None:
    interrupt(connection, queued, 'shutdown')
    copy = Job.fetch(queued.id, connection)
    assert len(copy.interruptions) == 1
    connection.hdel(queued.key, 'greenq_interruptions')
    copy.save()
    assert Job.fetch(queued.id, connection).interruptions == []


# ---- the rule for a lost worker ----


def test_a_rule_for_a_lost_worker_is_stored_only_if_it_is_given(connection: redis.Redis) -> None:
    assert 'greenq_on_lost' not in Job.create(add, connection=connection).to_dict()
    job = Job.create(add, id='strict', connection=connection, on_lost='fail')
    job.save()
    assert connection.hget(job.key, 'greenq_on_lost') == b'fail'
    assert Job.fetch('strict', connection).on_lost == 'fail'


def test_a_rule_that_is_none_is_refused(connection: redis.Redis) -> None:
    with pytest.raises(ValueError, match=r"on_lost 'drop' is not allowed\. Use `requeue` or `fail`"):
        Job.create(add, connection=connection, on_lost='drop')
    job = Job.create(add, connection=connection)
    job.on_lost = 'drop'
    with pytest.raises(ValueError, match="on_lost 'drop' is not allowed"):
        job.save()


def test_refresh_sees_what_others_wrote(connection: redis.Redis, job: Job) -> None:
    assert job.timeout is None
    connection.hset(job.key, 'timeout', 7)
    job.refresh()
    assert job.timeout == 7
    connection.delete(job.key)
    with pytest.raises(NoSuchJobError):
        job.refresh()


def test_status(connection: redis.Redis, job: Job) -> None:
    connection.hset(job.key, 'status', 'finished')
    assert job.get_status(refresh=False) is JobStatus.CREATED
    assert job.is_finished
    assert job.get_status(refresh=False) is JobStatus.FINISHED
    job.set_status(JobStatus.STOPPED)
    assert job.is_stopped
    others = [job.is_queued, job.is_failed, job.is_started, job.is_deferred, job.is_canceled, job.is_scheduled]
    assert not any([*others, job.is_ready_to_enqueue])
    connection.delete(job.key)
    with pytest.raises(InvalidJobOperation, match='Failed to retrieve status for job: j1'):
        job.get_status()


def test_meta(connection: redis.Redis, job: Job) -> None:
    job.meta['a'] = 1
    before = connection.hgetall(job.key)
    job.save_meta()
    assert {name for name, value in connection.hgetall(job.key).items() if before.get(name) != value} == {b'meta'}
    other = Job.fetch('j1', connection)
    other.meta['a'] = 2
    other.save_meta()
    assert job.get_meta(refresh=False) == {'a': 1}
    assert job.get_meta() == {'a': 2}


def test_saving_without_meta_keeps_what_the_job_wrote(connection: redis.Redis, job: Job) -> None:
    running = Job.fetch('j1', connection)
    running.meta['progress'] = 50
    running.save_meta()
    job.meta['stale'] = True
    job.save(include_meta=False)
    assert Job.fetch('j1', connection).meta == {'progress': 50}


def test_a_pipeline_defers_writes(connection: redis.Redis, job: Job) -> None:
    with connection.pipeline() as pipeline:
        job.set_status(JobStatus.FAILED, pipeline)
        job.heartbeat(MOMENT, 10, pipeline)
        assert Job.fetch('j1', connection).last_heartbeat is None
        pipeline.execute()
    fetched = Job.fetch('j1', connection)
    assert (fetched._status, fetched.last_heartbeat) == (JobStatus.FAILED, MOMENT)


def test_position(connection: redis.Redis) -> None:
    jobs = [Job.create(add, id=name, origin='default', connection=connection) for name in ('a', 'b')]
    enqueue(connection, *jobs)
    assert [job.get_position() for job in jobs] == [0, 1]
    assert Job('c', connection).get_position() is None
    assert Job.create(add, origin='default', connection=connection).get_position() is None


def test_prepare_for_execution(connection: redis.Redis, job: Job) -> None:
    with connection.pipeline() as pipeline:
        job.prepare_for_execution('w1', pipeline)
        pipeline.execute()
    fetched = Job.fetch('j1', connection)
    assert (fetched._status, fetched.worker_name) == (JobStatus.STARTED, 'w1')
    assert fetched.started_at == fetched.last_heartbeat == job.started_at


def test_cleanup(connection: redis.Redis, job: Job) -> None:
    connection.sadd(job.dependents_key, 'child')
    job.cleanup(-1)
    job.cleanup(None)
    assert connection.ttl(job.key) == -1
    job.cleanup(100)
    assert {connection.ttl(job.key), connection.ttl(job.dependents_key)} <= {99, 100}
    job.cleanup(0)
    assert connection.keys() == []


def test_canceling(connection: redis.Redis) -> None:
    job = Job.create(add, id='j1', origin='default', connection=connection)
    enqueue(connection, job)
    assert job.cancel() == {}
    assert job.get_status(refresh=False) is JobStatus.CANCELED
    assert job.is_canceled
    assert job.get_position() is None
    assert connection.zscore(keys.registry('canceled', 'default'), 'j1') is not None
    for again in (job.cancel, lambda: cancel_job('j1', connection)):
        with pytest.raises(InvalidJobOperation, match='Cannot cancel already canceled job: j1'):
            again()
    connection.delete(job.key)
    with pytest.raises(InvalidJobOperation, match='Failed to retrieve status'):
        job.cancel()


def test_canceling_can_enqueue_what_waits(connection: redis.Redis) -> None:
    parent = Job.create(add, id='parent', origin='default', connection=connection)
    child = Job.create(add, id='child', origin='low', depends_on=parent, connection=connection)
    enqueue(connection, parent)
    transitions.enqueue(connection, 'low', [child.to_submission()])
    assert parent.dependent_ids == ['child']
    assert child.dependency_ids == ['parent']
    assert child.is_deferred
    assert parent.cancel(enqueue_dependents=True) == {'low': ['child']}
    assert child.is_queued


def test_canceling_can_forget_what_it_waited_for(connection: redis.Redis) -> None:
    parent = Job.create(add, id='parent', origin='default', connection=connection)
    children = [
        Job.create(add, id=name, origin='default', depends_on=parent, connection=connection) for name in ('a', 'b')
    ]
    enqueue(connection, parent, *children)
    children[0].cancel(remove_from_dependencies=True)
    children[1].cancel()
    assert parent.dependent_ids == ['b']


def test_canceling_in_a_pipeline_happens_with_it(connection: redis.Redis) -> None:
    job = Job.create(add, id='j1', origin='default', connection=connection)
    enqueue(connection, job)
    with connection.pipeline() as pipeline:
        assert job.cancel(pipeline=pipeline) == {}
        assert Job.fetch('j1', connection).is_queued
        pipeline.execute()
    assert Job.fetch('j1', connection).is_canceled
    with connection.pipeline() as pipeline, pytest.raises(InvalidJobOperation, match='already canceled'):
        job.cancel(pipeline=pipeline)


def test_canceling_in_a_pipeline_that_watches_waits_for_its_execute(connection: redis.Redis) -> None:
    job = Job.create(add, id='j1', origin='default', connection=connection)
    enqueue(connection, job)
    with connection.pipeline() as pipeline:
        pipeline.watch(keys.suspended())  # type: ignore[no-untyped-call]
        job.cancel(pipeline=pipeline)
        connection.set(keys.suspended(), 1)
        with pytest.raises(redis.WatchError):
            pipeline.execute()
    assert Job.fetch('j1', connection).is_queued


def test_a_rate_limited_job_is_not_canceled_in_a_pipeline(connection: redis.Redis, job: Job) -> None:
    job.rate_limit_key, job.rate_limit_concurrency = 'api', 1
    with connection.pipeline() as pipeline, pytest.raises(InvalidJobOperation, match='rate-limited job j1'):
        job.cancel(pipeline=pipeline)


def test_requeueing_takes_a_job_out_of_the_failed_registry(connection: redis.Redis) -> None:
    job = Job.create(add, id='j1', origin='default', connection=connection)
    enqueue(connection, job, push=False)
    with connection.pipeline() as pipeline:
        job._handle_failure('Traceback', pipeline)
        pipeline.execute()
    assert job.is_failed
    assert requeue_job('j1', connection).is_queued
    assert job.get_position() == 0
    assert connection.zcard(keys.registry('failed', 'default')) == 0
    with pytest.raises(InvalidJobOperation):
        job.requeue()


def test_deleting(connection: redis.Redis) -> None:
    parent = Job.create(add, id='parent', origin='default', connection=connection)
    child = Job.create(add, id='child', origin='default', depends_on=parent, connection=connection)
    enqueue(connection, parent, child)
    Result.create(parent, Result.Type.SUCCESSFUL, 100, 1)
    with connection.pipeline() as pipeline:
        parent.delete(pipeline=pipeline)
        assert Job.exists('parent', connection)
        pipeline.execute()
    assert not Job.exists('parent', connection)
    assert (parent.get_position(), parent.results()) == (None, [])
    assert Job.exists('child', connection)
    parent.delete()


def test_deleting_with_all_that_waits(connection: redis.Redis) -> None:
    parent = Job.create(add, id='parent', origin='default', connection=connection)
    child = Job.create(add, id='child', origin='default', depends_on=parent, connection=connection)
    enqueue(connection, parent, child)
    parent.delete_dependents()
    assert Job.exists('parent', connection)
    assert not Job.exists('child', connection)
    enqueue(connection, child)
    parent.delete(delete_dependents=True)
    assert not Job.exists('child', connection)


# ---- dependencies ----


@pytest.mark.parametrize(
    ('statuses', 'allow_failure', 'met'),
    [
        (['finished', 'finished'], False, True),
        (['finished', 'gone'], False, True),
        (['finished', 'queued'], False, False),
        (['finished', 'failed'], False, False),
        (['finished', 'failed'], True, True),
        (['stopped'], True, False),
        (['canceled'], True, False),
        ([], False, True),
    ],
)
def test_when_dependencies_are_met(
    connection: redis.Redis, statuses: list[str], allow_failure: bool, met: bool
) -> None:
    parents = [Job.create(add, id=f'p{at}', connection=connection) for at in range(len(statuses))]
    job = Job.create(add, connection=connection)
    if parents:
        job.process_dependencies(Dependency(parents, allow_failure=allow_failure))
    for parent, status in zip(parents, statuses, strict=True):
        if status != 'gone':
            parent.set_status(JobStatus(status))
    job.register_dependency()
    assert job.dependencies_are_met() is met
    assert connection.zscore(keys.registry('deferred', ''), job.id) is not None


@pytest.mark.parametrize(
    ('status', 'allow_failure', 'met'),
    [
        (JobStatus.STARTED, False, True),
        (JobStatus.FAILED, False, False),
        (JobStatus.FAILED, True, True),
        (JobStatus.STOPPED, True, False),
        (JobStatus.CANCELED, True, False),
    ],
)
def test_a_parent_that_has_just_ended(
    connection: redis.Redis, status: JobStatus, allow_failure: bool, met: bool
) -> None:
    parent = Job.create(add, id='parent', connection=connection)
    parent.set_status(status)
    job = Job.create(add, depends_on=Dependency(parent, allow_failure=allow_failure), connection=connection)
    job.register_dependency()
    assert job.dependencies_are_met(parent) is met
    assert job.dependencies_are_met(parent, exclude_job_id='parent')


def test_dependencies_can_be_watched(connection: redis.Redis, job: Job) -> None:
    child = Job.create(add, depends_on=job, connection=connection)
    child.register_dependency()
    for watch in (
        lambda pipeline: child.dependencies_are_met(pipeline=pipeline),
        lambda pipeline: child.fetch_dependencies(watch=True, pipeline=pipeline),
    ):
        with connection.pipeline() as pipeline:
            watch(pipeline)
            connection.hset(job.key, 'status', 'failed')
            pipeline.multi()
            pipeline.set(keys.suspended(), 1)
            with pytest.raises(redis.WatchError):
                pipeline.execute()


def test_the_first_dependency_is_fetched_once(connection: redis.Redis, job: Job) -> None:
    child = Job.create(add, depends_on=[job, 'gone'], connection=connection)
    assert child.dependency is child.dependency
    assert child.dependency == job
    assert child.fetch_dependencies() == [job]
    assert job.dependency is None


# ---- results ----


def test_return_values_are_remembered(job: Job) -> None:
    assert job.return_value() is None
    Result.create(job, Result.Type.SUCCESSFUL, 100, 'first')
    assert job.return_value() == 'first'
    Result.create(job, Result.Type.SUCCESSFUL, 100, 'second')
    assert job.return_value() == 'first'
    assert job.return_value(refresh=True) == 'second'
    Result.create_failure(job, 100, 'Traceback')
    assert job.return_value(refresh=True) is None


def test_deprecated_properties_still_work(connection: redis.Redis, job: Job) -> None:
    Result.create(job, Result.Type.SUCCESSFUL, 100, 'done')
    with pytest.warns(DeprecationWarning, match='job.result is deprecated'):
        assert job.result == 'done'
    other = Job.fetch('j1', connection)
    Result.create_failure(other, 100, 'Traceback')
    with pytest.warns(DeprecationWarning, match='job.exc_info is deprecated'):
        assert other.exc_info == 'Traceback'


def test_results_of_old_rq_are_found_in_the_hash(connection: redis.Redis, job: Job) -> None:
    connection.hset(job.key, mapping={'result': pickle.dumps(7), 'exc_info': zlib.compress(b'Traceback')})
    job.refresh()
    assert (job._result, job._exc_info) == (7, 'Traceback')
    with pytest.warns(DeprecationWarning):
        assert (job.result, job.exc_info) == (7, 'Traceback')
    connection.hset(job.key, 'result', b'nonsense')
    assert Job.fetch('j1', connection)._result == 'Unserializable return value'


# ---- for workers written for RQ ----


@pytest.mark.parametrize(('interval', 'status'), [(0, JobStatus.QUEUED), (60, JobStatus.SCHEDULED)])
def test_retrying_uses_one_retry(connection: redis.Redis, interval: int, status: JobStatus) -> None:
    job = Job.create(fail, id='j1', origin='default', retry=Retry(max=2, interval=interval), connection=connection)
    enqueue(connection, job, push=False)
    with connection.pipeline() as pipeline:
        job.retry(named('default'), pipeline)
        pipeline.execute()
    fetched = Job.fetch('j1', connection)
    assert fetched._status is status
    assert fetched.retries_left == job.retries_left == 1
    due = connection.zscore(keys.registry('scheduled', 'default'), 'j1')
    assert (due is None) is (interval == 0)
    assert fetched.get_position() == (0 if interval == 0 else None)


def test_a_job_without_retries_is_not_retried(connection: redis.Redis, job: Job) -> None:
    with connection.pipeline() as pipeline, pytest.raises(InvalidJobOperation, match='j1: it has no retries left'):
        job.retry(named('default'), pipeline)


def test_a_returned_retry_is_a_result(connection: redis.Redis, job: Job) -> None:
    with connection.pipeline() as pipeline:
        job._handle_retry_result(
            named('default'), pipeline, Retry(max=2, interval=9), 'e1', MOMENT, MOMENT + timedelta(seconds=1), 'w1'
        )
        pipeline.execute()
    job.refresh()
    assert (job._status, job.number_of_retries) == (JobStatus.SCHEDULED, 1)
    result = job.latest_result()
    assert result is not None
    assert (result.type, result.execution_id, result.worker_name) == (Result.Type.RETRIED, 'e1', 'w1')
    assert result.return_value.max == 2


def test_success_and_failure_are_recorded(connection: redis.Redis, job: Job) -> None:
    job._result = job.perform()
    with connection.pipeline() as pipeline:
        job._handle_success(100, pipeline)
        pipeline.execute()
    assert (job.is_finished, job.return_value()) == (True, 1)
    assert connection.zscore(keys.registry('finished', 'default'), 'j1') is not None
    with connection.pipeline() as pipeline:
        job._handle_failure('Traceback', pipeline)
        pipeline.execute()
    result = job.latest_result()
    assert result is not None
    assert (job.is_failed, result.exc_string) == (True, 'Traceback')
    assert connection.ttl(keys.results('j1')) > 1000


def named(name: str) -> Any:
    """What `Job.retry` needs of a queue."""
    from greenq.queue import Queue

    return Queue(name)
