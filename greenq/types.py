"""Type aliases for annotations, under RQ's names; nothing here exists for its own sake at run time."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

if TYPE_CHECKING:
    from redis import Redis

    from greenq.job import Dependency, Job

    Connection: TypeAlias = Redis

FunctionReferenceType = TypeVar('FunctionReferenceType', str, Callable[..., Any])
"""A function to run: itself, or its dotted path."""

JobDependencyType: TypeAlias = 'Dependency | Job | str | list[Dependency | Job | str]'
"""What `depends_on` accepts: jobs, ids, `Dependency` objects, or a list of them."""

ExcInfo: TypeAlias = tuple[type[BaseException] | None, BaseException | None, TracebackType | None]

SuccessCallbackType: TypeAlias = Callable[['Job', 'Redis', Any], Any]
FailureCallbackType: TypeAlias = Callable[
    ['Job', 'Redis', type[BaseException] | None, BaseException | None, TracebackType | None], Any
]
