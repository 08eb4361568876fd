"""Every Redis key and channel that greenq uses; no other file spells one.

`TEMPLATES` is the single source: the functions below fill it for Python, and `lua_prelude()` turns it into the
functions of the same names that the scripts call. RQ's keys are as RQ 3.0 names them; greenq's own live below
`<prefix>:greenq:`.
"""

from greenq.defaults import RQ_KEY_PREFIX as PREFIX

#: name -> what follows the prefix; `{0}` is the only argument, a job id, queue, worker or registry name.
TEMPLATES = {
    'queues': ':queues',
    'queue': ':queue:{0}',
    'intermediate': ':queue:{0}:intermediate',
    'job': ':job:{0}',
    'dependents': ':job:{0}:dependents',
    'dependencies': ':job::{0}:dependencies',
    'started': ':wip:{0}',
    'finished': ':finished:{0}',
    'failed': ':failed:{0}',
    'deferred': ':deferred:{0}',
    'ready': ':ready:{0}',
    'scheduled': ':scheduled:{0}',
    'canceled': ':canceled:{0}',
    'execution': ':execution:{0}',
    'executions': ':executions:{0}',
    'results': ':results:{0}',
    'workers': ':workers',
    'queue_workers': ':workers:{0}',
    'worker': ':worker:{0}',
    'worker_executions': ':worker:{0}:executions',
    'clean_registries': ':clean_registries:{0}',
    'clean_groups': ':clean_groups',
    'scheduler_lock': ':scheduler-lock:{0}',
    'scheduler': ':scheduler:{0}',
    'cron_schedulers': ':cron_schedulers',
    'cron_scheduler': ':cron_scheduler:{0}',
    'cron_jobs': ':cron_jobs',
    'cron_job_history': ':cron_job:{0}:jobs',
    'groups': ':groups',
    'group': ':group:{0}',
    'suspended': ':suspended',
    'rate_limits': ':rl-keys',
    'rate_limit': ':rl:{0}',
    'rate_allowed': ':rl:{0}:allowed',
    'rate_limited': ':rl:{0}:rate_limited',
    'channel': ':pubsub:{0}',
    # greenq's own
    'leases': ':greenq:leases',
    'member': ':greenq:worker:{0}',
    'held': ':greenq:worker:{0}:executions',
    'parked': ':greenq:parked:{0}',
    'tombstone': ':greenq:done:{0}',
    'tick': ':greenq:tick:{0}',
}


def _fill(name: str, argument: str) -> str:
    return PREFIX + TEMPLATES[name].replace('{0}', argument)


def queues() -> str:
    """Set of the keys of all queues that were ever enqueued to."""
    return _fill('queues', '')


def queue(name: str) -> str:
    """List of the ids of the jobs that wait in a queue; workers take from the left."""
    return _fill('queue', name)


def intermediate(queue_name: str) -> str:
    """List where RQ workers of a single queue keep an id between dequeue and start."""
    return _fill('intermediate', queue_name)


def job(job_id: str) -> str:
    """Hash of a job."""
    return _fill('job', job_id)


def dependents(job_id: str) -> str:
    """Set of the ids of the jobs that wait for a job."""
    return _fill('dependents', job_id)


def dependencies(job_id: str) -> str:
    """Set of the ids of the jobs that a job waits for (RQ puts two colons into this one)."""
    return _fill('dependencies', job_id)


def registry(kind: str, queue_name: str) -> str:
    """Sorted set of a queue's registry; `kind` is started, finished, failed, deferred, ready, scheduled or canceled."""
    return _fill(kind, queue_name)


def execution(composite_key: str) -> str:
    """Hash of one attempt; the argument is `<job id>:<execution id>`."""
    return _fill('execution', composite_key)


def executions(job_id: str) -> str:
    """Sorted set of the execution ids of a job, scored by expiry."""
    return _fill('executions', job_id)


def results(job_id: str) -> str:
    """Stream of the results of a job."""
    return _fill('results', job_id)


def workers(queue_name: str | None = None) -> str:
    """Set of the keys of all workers, or of those that listen to a queue."""
    return _fill('workers', '') if queue_name is None else _fill('queue_workers', queue_name)


def worker(name: str) -> str:
    """Hash of a worker."""
    return _fill('worker', name)


def worker_executions(worker_name: str) -> str:
    """Set of the composite keys of what a worker runs now, as RQ keeps it."""
    return _fill('worker_executions', worker_name)


def clean_registries(queue_name: str) -> str:
    """Lock of the cleaning of a queue's registries."""
    return _fill('clean_registries', queue_name)


def clean_groups() -> str:
    """Lock of the cleaning of groups."""
    return _fill('clean_groups', '')


def scheduler_lock(queue_name: str) -> str:
    """Lock of the scheduler of a queue."""
    return _fill('scheduler_lock', queue_name)


def scheduler(name: str) -> str:
    """Hash of a scheduler."""
    return _fill('scheduler', name)


def cron_schedulers() -> str:
    """Sorted set of the names of cron schedulers, scored by heartbeat."""
    return _fill('cron_schedulers', '')


def cron_scheduler(name: str) -> str:
    """Hash of a cron scheduler."""
    return _fill('cron_scheduler', name)


def cron_jobs() -> str:
    """Sorted set of the names of cron jobs."""
    return _fill('cron_jobs', '')


def cron_job_history(name: str) -> str:
    """Sorted set of the ids of the jobs that a cron job has enqueued, scored by time."""
    return _fill('cron_job_history', name)


def groups() -> str:
    """Set of the names of all groups."""
    return _fill('groups', '')


def group(name: str) -> str:
    """Set of the ids of the jobs of a group."""
    return _fill('group', name)


def suspended() -> str:
    """String that exists while all workers are suspended."""
    return _fill('suspended', '')


def rate_limits() -> str:
    """Set of the names of all rate limits."""
    return _fill('rate_limits', '')


def rate_limit(name: str) -> str:
    """Hash of the settings of a rate limit."""
    return _fill('rate_limit', name)


def rate_allowed(name: str) -> str:
    """Sorted set of the ids of the jobs that a rate limit has let through."""
    return _fill('rate_allowed', name)


def rate_limited(name: str) -> str:
    """Sorted set of the ids of the jobs that a rate limit holds back."""
    return _fill('rate_limited', name)


def channel(worker_name: str) -> str:
    """Channel on which a worker takes commands."""
    return _fill('channel', worker_name)


def leases() -> str:
    """Sorted set of the names of live greenq workers, scored by when their lease ends (ms, Redis' clock)."""
    return _fill('leases', '')


def member(worker_name: str) -> str:
    """Hash of a greenq worker's incarnation: its token, its rules for what it loses, and what is known of its death."""
    return _fill('member', worker_name)


def held(worker_name: str) -> str:
    """Set of the composite keys that a greenq worker has under lease; unlike RQ's index it never expires."""
    return _fill('held', worker_name)


def parked(worker_name: str) -> str:
    """List of the ids that a waiting worker was handed and has not claimed yet."""
    return _fill('parked', worker_name)


def tombstone(job_id: str) -> str:
    """String with the enqueue token of a job whose hash is already gone, kept for a minute."""
    return _fill('tombstone', job_id)


def tick(name: str) -> str:
    """String with the latest tick of a cron job that was enqueued."""
    return _fill('tick', name)


def lua_prelude() -> str:
    """The functions `<name>_key(argument)` for the scripts."""
    lines = []
    for name, template in TEMPLATES.items():
        before, _, after = template.partition('{0}')
        if '{0}' in template:
            tail = f" .. '{after}'" if after else ''
            lines.append(f"local function {name}_key(a) return '{PREFIX}{before}' .. a{tail} end")
        else:
            lines.append(f"local function {name}_key() return '{PREFIX}{before}' end")
    return '\n'.join(lines)
