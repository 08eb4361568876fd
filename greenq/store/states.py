"""The states of a job and, as a table, every transition between them, and what may become of a job that was cut off:
"this is allowed" is written here only.

The scripts enforce the table; `tests/store` walks it whole, from legal and illegal source states.
"""

from enum import Enum


class JobStatus(str, Enum):
    """Status of a job, as stored in its hash."""

    CREATED = 'created'
    QUEUED = 'queued'
    FINISHED = 'finished'
    FAILED = 'failed'
    STARTED = 'started'
    DEFERRED = 'deferred'
    SCHEDULED = 'scheduled'
    STOPPED = 'stopped'
    CANCELED = 'canceled'
    RATE_LIMITED = 'rate_limited'
    READY_TO_ENQUEUE = 'ready_to_enqueue'


_S = JobStatus
_ANY = frozenset(JobStatus)
_NOT_CANCELED = _ANY - {_S.CANCELED}

#: transition -> (states it may start from, states it may end in). Transitions that end an execution (finish, fail,
#: retry, release, recover_lost) start from `started` by way of their fence: the execution must still be in the started
#: registry.
TRANSITIONS: dict[str, tuple[frozenset[JobStatus], frozenset[JobStatus]]] = {
    'enqueue': (_ANY, frozenset({_S.QUEUED, _S.DEFERRED, _S.RATE_LIMITED})),
    'schedule': (_ANY, frozenset({_S.SCHEDULED})),
    'claim': (_NOT_CANCELED, frozenset({_S.STARTED})),
    'finish': (frozenset({_S.STARTED}), frozenset({_S.FINISHED, _S.QUEUED, _S.SCHEDULED})),
    'fail': (frozenset({_S.STARTED}), frozenset({_S.FAILED, _S.STOPPED})),
    'retry': (frozenset({_S.STARTED}), frozenset({_S.QUEUED, _S.SCHEDULED})),
    'release': (frozenset({_S.STARTED}), frozenset({_S.QUEUED, _S.FAILED})),
    # A job that is adopted stays started: who adopts it then fails or retries it.
    'recover_lost': (frozenset({_S.STARTED}), frozenset({_S.QUEUED, _S.FAILED})),
    'cancel': (_NOT_CANCELED, frozenset({_S.CANCELED})),
    'requeue': (_ANY, frozenset({_S.QUEUED, _S.RATE_LIMITED})),
    # A job put into the registry by hand keeps the status that it was made with, created or, not yet enqueued, queued.
    'promote_scheduled': (frozenset({_S.SCHEDULED, _S.CREATED, _S.QUEUED}), frozenset({_S.QUEUED, _S.RATE_LIMITED})),
    'promote_ready': (frozenset({_S.READY_TO_ENQUEUE}), frozenset({_S.QUEUED, _S.RATE_LIMITED})),
}

#: status -> kind of the registry that holds a job in it (`keys.registry`); a started job is listed by execution.
REGISTRY_OF_STATUS: dict[JobStatus, str] = {
    _S.FINISHED: 'finished',
    _S.FAILED: 'failed',
    _S.STOPPED: 'failed',
    _S.DEFERRED: 'deferred',
    _S.READY_TO_ENQUEUE: 'ready',
    _S.SCHEDULED: 'scheduled',
    _S.CANCELED: 'canceled',
}

#: What may become of a job whose worker is lost: it runs again as if nothing had been, or fails (or is retried, if it
#: may) as in RQ.
ON_LOST = ('requeue', 'fail')


def checked_on_lost(rule: str) -> str:
    """The rule; ValueError if it is none."""
    if rule not in ON_LOST:
        raise ValueError(f'on_lost {rule!r} is not allowed. Use {" or ".join(f"`{name}`" for name in ON_LOST)}.')
    return rule
