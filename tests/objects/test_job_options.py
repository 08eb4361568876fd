"""What `enqueue` takes for itself and what it leaves to the function, and which options it refuses."""

from __future__ import annotations

import types
from typing import Any

import pytest

from greenq.callbacks import Callback
from greenq.job_options import NOTHING_SAID, JobOptions, check_unique, parse
from greenq.retry import Retry


def greet(name: str = 'you') -> str:
    return f'Hello, {name}'


def echo(*args: Any, **kwargs: Any) -> Any:
    return args, kwargs


def slow(timeout: int) -> int:
    return timeout


def test_a_call_without_options_is_left_as_it_is() -> None:
    assert parse(greet, ('Ann',), {}) == (NOTHING_SAID, ('Ann',), {})


def test_options_are_parted_from_the_functions_arguments() -> None:
    kwargs: dict[str, Any] = {'job_timeout': '5m', 'name': 'Ann', 'job_id': 'a', 'at_front': True, 'meta': {'x': 1}}
    options, call_args, call_kwargs = parse(greet, (), kwargs)
    assert options.given() == {'timeout': '5m', 'job_id': 'a', 'at_front': True, 'meta': {'x': 1}}
    assert (call_args, call_kwargs) == ((), {'name': 'Ann'})


@pytest.mark.parametrize(
    'name',
    [
        *(
            'description',
            'result_ttl',
            'ttl',
            'failure_ttl',
            'depends_on',
            'job_id',
            'at_front',
            'meta',
            'retry',
            'repeat',
        ),
        *('on_success', 'on_failure', 'on_stopped', 'rate_limit', 'webhooks', 'pipeline', 'unique'),
    ],
)
def test_every_option_of_rq_is_recognized(name: str) -> None:
    value = object()
    options, _, call_kwargs = parse(greet, (), {name: value})
    assert getattr(options, name) is value
    assert call_kwargs == {}


def test_explicit_args_and_kwargs_let_the_function_have_arguments_of_the_same_names() -> None:
    options, call_args, call_kwargs = parse(
        echo, (), {'args': [1], 'kwargs': {'ttl': 15, 'timeout': 1}, 'ttl': 30, 'job_timeout': 2}
    )
    assert options.given() == {'ttl': 30, 'timeout': 2}
    assert (call_args, call_kwargs) == ([1], {'ttl': 15, 'timeout': 1})


def test_explicit_arguments_exclude_positional_ones() -> None:
    with pytest.raises(TypeError, match=r'put \(1,\) into args='):
        parse(echo, (1,), {'kwargs': {}})


def test_timeout_is_the_functions_if_it_takes_one() -> None:
    for func in (slow, echo, 'some.module.func'):
        options, _, call_kwargs = parse(func, (), {'timeout': 7})
        assert options is NOTHING_SAID
        assert call_kwargs == {'timeout': 7}


def test_timeout_is_the_jobs_where_the_function_cannot_take_it() -> None:
    options, _, call_kwargs = parse(greet, (), {'timeout': 3600})
    assert (options.timeout, call_kwargs) == (3600, {})


def test_timeout_beside_explicit_arguments_is_the_jobs() -> None:
    options, call_args, call_kwargs = parse(echo, (), {'args': (1,), 'kwargs': {'bar': 2}, 'timeout': 600})
    assert (options.timeout, call_args, call_kwargs) == (600, (1,), {'bar': 2})


def strict(on_lost: str = '') -> str:
    return on_lost


def test_what_rq_does_not_have_is_the_functions_if_it_has_a_parameter_of_that_name() -> None:
    assert parse(strict, (), {'on_lost': 'fail'}) == (NOTHING_SAID, (), {'on_lost': 'fail'})
    for func in (greet, echo, 'some.module.func'):
        options, _, call_kwargs = parse(func, (), {'on_lost': 'fail'})
        assert (options.on_lost, call_kwargs) == ('fail', {})
    options, _, call_kwargs = parse(strict, (), {'kwargs': {'on_lost': 'x'}, 'on_lost': 'fail'})
    assert (options.on_lost, call_kwargs) == ('fail', {'on_lost': 'x'})


def test_an_unknown_name_beside_explicit_arguments_is_not_lost_silently() -> None:
    with pytest.warns(RuntimeWarning, match='ignores job_timout'):
        parse(echo, (), {'args': (1,), 'job_timout': 5})


def test_functions_of_main_are_refused() -> None:
    function = types.FunctionType(greet.__code__, globals(), 'greet')
    function.__module__ = '__main__'
    with pytest.raises(ValueError, match='Functions from the __main__ module'):
        parse(function, (), {})


def test_times_become_seconds_and_the_default_timeout_applies() -> None:
    assert JobOptions().create_arguments(180) == {'timeout': 180}
    arguments = JobOptions(timeout='1h', ttl='2m', result_ttl=0, job_id='a', retry=Retry(2)).create_arguments(180)
    assert (arguments['timeout'], arguments['ttl'], arguments['result_ttl'], arguments['id']) == (3600, 120, 0, 'a')
    assert JobOptions(timeout=-1).create_arguments(180)['timeout'] == -1


@pytest.mark.parametrize('timeout', [0, '0', '0s'])
def test_a_timeout_of_zero_is_refused(timeout: int | str) -> None:
    with pytest.raises(ValueError, match='0 timeout is not allowed'):
        JobOptions(timeout=timeout).create_arguments(180)


@pytest.mark.parametrize('ttl', [0, -1, '-5'])
def test_a_ttl_must_be_positive(ttl: int | str) -> None:
    with pytest.raises(ValueError, match=f'ttl must be greater than 0, got {ttl!r}'):
        JobOptions(ttl=ttl).create_arguments(180)


def test_job_arguments_leave_out_how_the_job_is_submitted() -> None:
    callback = Callback('some.function')
    options = JobOptions(at_front=True, unique=True, job_id='a', on_success=callback)
    assert options.job_arguments() == {'job_id': 'a', 'on_success': callback}


def test_unique_needs_an_id_and_neither_dependencies_nor_a_rate_limit() -> None:
    check_unique('a', False, False)
    with pytest.raises(ValueError, match='requires an explicit job_id'):
        check_unique(None, False, False)
    with pytest.raises(ValueError, match='unique=True is not supported with job dependencies'):
        check_unique('a', True, False)
    with pytest.raises(ValueError, match='rate-limited jobs'):
        check_unique('a', False, True)
