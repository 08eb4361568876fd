"""Every default value, with its unit: RQ's constants under RQ's names, then greenq's own. No code but one check."""

from __future__ import annotations

import os
import re

# ---- shared with RQ ----

RQ_KEY_PREFIX = os.environ.get('GREENQ_KEY_PREFIX', os.environ.get('RQ_KEY_PREFIX', 'rq'))
"""What every key begins with. Read once, at import, as RQ does."""

# The prefix becomes part of keys, channel names, patterns and `str.format` templates.
if not re.fullmatch(r'[A-Za-z0-9_.:{}-]+', RQ_KEY_PREFIX):
    raise ValueError(
        f'Invalid RQ_KEY_PREFIX {RQ_KEY_PREFIX!r}: use only letters, digits and the characters _ . : - {{ }}'
    )

FORMAT_KEY_PREFIX = RQ_KEY_PREFIX.replace('{', '{{').replace('}', '}}')
"""The prefix, escaped for use inside a `str.format` template."""

DEFAULT_JOB_CLASS = 'greenq.job.Job'
DEFAULT_QUEUE_CLASS = 'greenq.Queue'
DEFAULT_WORKER_CLASS = 'greenq.Worker'
DEFAULT_SERIALIZER_CLASS = 'greenq.serializers.DefaultSerializer'
DEFAULT_CONNECTION_CLASS = 'redis.Redis'
DEFAULT_DEATH_PENALTY_CLASS = 'greenq.timeouts.UnixSignalDeathPenalty'

DEFAULT_JOB_TIMEOUT = 180
"""Seconds that a job may run when neither it nor its queue says otherwise."""

DEFAULT_RESULT_TTL = 500
"""Seconds that a result, and a finished job, are kept."""

DEFAULT_FAILURE_TTL = 365 * 24 * 60 * 60
"""Seconds that a failed job is kept."""

CALLBACK_TIMEOUT = 60
"""Seconds that a callback may run."""

DEFAULT_WORKER_TTL = 420
"""Seconds without a heartbeat after which others take a worker for dead."""

DEFAULT_JOB_MONITORING_INTERVAL = 30
"""Seconds between two looks of a forking worker at its running child."""

DEFAULT_MAINTENANCE_TASK_INTERVAL = 10 * 60
"""Seconds between two rounds of registry maintenance."""

DEFAULT_SCHEDULER_FALLBACK_PERIOD = 120
"""Seconds until a worker looks again whether a queue's scheduler is gone and its place is free."""

DEFAULT_CRON_JOB_HISTORY_LIMIT = 1000
"""Job ids that are remembered per cron job."""

DEFAULT_CRON_JOB_HISTORY_TTL = 365 * 24 * 60 * 60
"""Seconds that a cron job's history outlives its newest entry."""

DEFAULT_CRON_SCHEDULER_TTL = 120
"""Seconds without a heartbeat after which a cron scheduler counts as dead."""

DEFAULT_LOGGING_DATE_FORMAT = '%H:%M:%S'
DEFAULT_LOGGING_FORMAT = '%(asctime)s %(message)s'

UNSERIALIZABLE_RETURN_VALUE_PAYLOAD = 'Unserializable return value'
"""Stored in place of a result that the serializer refuses."""

# ---- greenq's own ----

LEASE_SECONDS = 15
"""How long an execution is its worker's without a beat; afterwards anybody may put the job back."""

BEAT_SECONDS = 5
"""How often a worker extends all its leases."""

REAP_SECONDS = 5
"""How often a worker looks for leases that expired."""

IDLE_SECONDS = 30
"""After so long without a job, and without trouble with Redis, a worker asks for less."""

IDLE_BEAT_SECONDS = 6
"""How often it then extends its lease, and looks at those of others if one of them may have expired since."""

IDLE_REFRESH_SECONDS = 210
"""How often it then refreshes RQ's record of it, and checks what it holds."""

DEFAULT_CONCURRENCY = 100
"""Jobs that a gevent worker runs at once."""

CONCURRENT_ARGUMENTS = ('concurrency', 'grace', 'max_memory', 'max_age', 'block_warning')
"""Constructor arguments of workers that run jobs concurrently; no other worker takes them."""

DEFAULT_GRACE_SECONDS = 25
"""How long running jobs may go on after a stop was asked for; orchestrators kill after 30."""

DEADLINE_GRACE_SECONDS = 5
"""How long a job may stay past its deadline, because it hangs or swallows what it is told, before stronger means."""

DEFAULT_BLOCK_WARNING_SECONDS = 0.5
"""A job that keeps all others of its process from running for longer than this is logged."""

MAX_INTERRUPTIONS = 3
"""Interruptions in a row after which a job is failed as poison."""

MAX_INNOCENT_INTERRUPTIONS = 20
"""The same for those that another job of the worker is to blame for: they count separately, but not for ever."""

CLAIM_MAX_BATCH = 100
"""Jobs claimed by one script call at most, so that no call blocks the server for more than some milliseconds."""
