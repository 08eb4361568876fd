"""The exception tree: RQ's names catch what they catch in RQ, and everything survives a pickle."""

from __future__ import annotations

import pickle

import pytest
import rq.exceptions

from greenq import exceptions
from greenq.exceptions import (
    GreenqError,
    InvalidJobOperation,
    InvalidJobOperationError,
    PoisonJobError,
    ShutDownImminentException,
    UnserializableError,
)

RQ_NAMES = sorted(name for name, value in vars(rq.exceptions).items() if isinstance(value, type))


@pytest.mark.parametrize('name', RQ_NAMES)
def test_every_exception_of_rq_exists(name: str) -> None:
    ours, theirs = getattr(exceptions, name), getattr(rq.exceptions, name)
    assert issubclass(ours, Exception) == issubclass(theirs, Exception)
    assert issubclass(ours, BaseException)


def test_the_shutdown_exception_passes_an_except_exception() -> None:
    assert not issubclass(ShutDownImminentException, Exception)
    error = pickle.loads(pickle.dumps(ShutDownImminentException('going down', {'line': 3})))
    assert str(error) == 'going down'
    assert error.extra_info == {'line': 3}


def test_either_spelling_of_invalid_operation_catches_what_is_raised() -> None:
    for spelling in (InvalidJobOperation, InvalidJobOperationError, GreenqError):
        with pytest.raises(spelling):
            raise InvalidJobOperation('no')


def test_unserializable_is_a_type_error() -> None:
    with pytest.raises(TypeError):
        raise UnserializableError('a lock')


def test_poison_counts_its_interruptions() -> None:
    error = pickle.loads(pickle.dumps(PoisonJobError(3)))
    assert error.interruptions == 3
    assert str(error).startswith('interrupted 3 times in a row')
