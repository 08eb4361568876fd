"""`greenq worker`: from options and settings to a running worker. How a worker works is greenq.worker's business."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, NoReturn

import click

from greenq import bootstrap, compat
from greenq.cli.config import Config, given_options, pass_config
from greenq.cli.errors import CommandError, one_line
from greenq.cli.worker_options import given_arguments, worker_options
from greenq.defaults import (
    CONCURRENT_ARGUMENTS,
    DEFAULT_GRACE_SECONDS,
    DEFAULT_JOB_MONITORING_INTERVAL,
    DEFAULT_LOGGING_DATE_FORMAT,
    DEFAULT_LOGGING_FORMAT,
    DEFAULT_MAINTENANCE_TASK_INTERVAL,
    DEFAULT_RESULT_TTL,
    DEFAULT_WORKER_TTL,
)
from greenq.pulse import is_supervised

if TYPE_CHECKING:
    from greenq.worker import BaseWorker

STRATEGIES = ('default', 'random', 'round_robin')


@click.command()
@click.option('--burst', '-b', is_flag=True, help='Stop when the queues are empty.')
@worker_options
@click.option('--logging_level', '--logging-level', 'logging_level', help='DEBUG, INFO, WARNING or ERROR.')
@click.option('--log-format', default=DEFAULT_LOGGING_FORMAT, help='Format of log lines.')
@click.option('--date-format', default=DEFAULT_LOGGING_DATE_FORMAT, help='Format of times in log lines.')
@click.option('--name', '-n', help='Name of the worker.  [default: a random one]')
@click.option('--results-ttl', type=int, default=DEFAULT_RESULT_TTL, help='Seconds that results are kept.')
@click.option(
    '--worker-ttl',
    type=int,
    default=DEFAULT_WORKER_TTL,
    help='Seconds without a sign of life after which it counts as dead.',
)
@click.option(
    '--maintenance-interval',
    type=int,
    default=DEFAULT_MAINTENANCE_TASK_INTERVAL,
    help='Seconds between two cleanings of the registries.',
)
@click.option(
    '--job-monitoring-interval',
    type=int,
    default=DEFAULT_JOB_MONITORING_INTERVAL,
    help='Seconds between two looks of a forking worker at its child.',
)
@click.option('--disable-job-desc-logging', is_flag=True, help='Keep the descriptions of jobs out of the log.')
@click.option('--verbose', '-v', is_flag=True, help='Log more.')
@click.option('--quiet', '-q', is_flag=True, help='Log only warnings and errors.')
@click.option('--exception-handler', multiple=True, help='Dotted path of a handler of exceptions; may be repeated.')
@click.option('--pid', help='File to write the process id to.')
@click.option(
    '--disable-default-exception-handler', '-d', is_flag=True, help='Do not move failed jobs to the failed registry.'
)
@click.option('--max-jobs', type=int, help='Stop after this many jobs; a supervised worker is replaced then.')
@click.option('--max-idle-time', type=int, help='Stop after this many seconds without a job.')
@click.option(
    '--processes',
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help='Processes that run gevent workers, each with its own slots.',
)
@click.option(
    '--supervisor/--no-supervisor',
    default=True,
    envvar='GREENQ_SUPERVISOR',
    help='Watch a gevent worker from a process of its own, which replaces it when it dies or hangs.  [default: on]',
)
@click.option('--with-scheduler', '-s', is_flag=True, help='Enqueue scheduled jobs when they are due.')
@click.option(
    '--dequeue-strategy', '-ds', default='default', help='Order of the queues: default, random or round_robin.'
)
@click.option('--sentry-dsn', envvar=['GREENQ_SENTRY_DSN', 'RQ_SENTRY_DSN'], help='Where to report exceptions of jobs.')
@click.option(
    '--rq-alias/--no-rq-alias',
    default=True,
    show_default=True,
    envvar='GREENQ_RQ_ALIAS',
    help='Let jobs that import rq get greenq, so that rq.get_current_job() and the like work in them.',
)
@click.argument('queue_names', metavar='[QUEUES]...', nargs=-1)
@pass_config
def worker(config: Config, queue_names: Sequence[str], **options: Any) -> None:
    """Run a worker for the given queues, most important first; without any, for `default`."""
    own_arguments = given_arguments(options)
    plan = _Plan(own_arguments=own_arguments, **{name: value for name, value in options.items() if name in _PLANNED})
    _check_logging(plan)
    if not is_supervised() and _is_to_be_supervised(config, plan):
        _supervise(config, plan)
    if plan.rq_alias:
        compat.install_if_free()
    worker_class = _load_worker_class(config, plan)
    _check(plan, worker_class, config)
    configure_logging(config.settings.get('DICT_CONFIG'))
    if plan.pid and not is_supervised():
        _write_pid(plan.pid)
    handlers = [import_handler(name) for name in plan.exception_handler]
    dsn = plan.sentry_dsn or config.settings.get('SENTRY_DSN')
    if dsn:
        from greenq.cli.sentry import start_sentry

        handlers.insert(0, start_sentry(dsn))
    _refuse_while_suspended(config)
    try:
        status = _run(_build(worker_class, config, plan, queue_names, handlers), plan)
    except ValueError as error:
        # The worker's loop lets none out: one comes from an argument, or a name that another worker has.
        raise CommandError(f'Cannot start the worker: {one_line(error)}.') from error
    if status:
        sys.exit(status)


@dataclass(frozen=True)
class _Plan:
    """The options of this command, by their names."""

    burst: bool
    logging_level: str | None
    log_format: str
    date_format: str
    name: str | None
    results_ttl: int
    worker_ttl: int
    maintenance_interval: int
    job_monitoring_interval: int
    disable_job_desc_logging: bool
    verbose: bool
    quiet: bool
    exception_handler: Sequence[str]
    pid: str | None
    disable_default_exception_handler: bool
    max_jobs: int | None
    max_idle_time: int | None
    processes: int
    supervisor: bool
    with_scheduler: bool
    dequeue_strategy: str
    sentry_dsn: str | None
    rq_alias: bool
    #: What RQ's workers do not take.
    own_arguments: Mapping[str, Any]

    @property
    def level(self) -> str | None:
        """What to set the loggers to; None leaves it to the worker."""
        if self.verbose:
            return 'DEBUG'
        return 'WARNING' if self.quiet else self.logging_level

    @property
    def concurrent_arguments(self) -> list[str]:
        """Those of the arguments that were given which only concurrent workers take."""
        return [name for name in self.own_arguments if name in CONCURRENT_ARGUMENTS]


_PLANNED = {field.name for field in fields(_Plan)}


def _load_worker_class(config: Config, plan: _Plan) -> type[BaseWorker]:
    """The class to run. Does not return, but starts over, where the class needs a process patched from the start."""
    with warnings.catch_warnings(record=True) as caught:
        worker_class = config.worker_class
    needs_patching = getattr(worker_class, 'needs_monkey_patching', False)
    if needs_patching and not bootstrap.is_patched_first() and bootstrap.may_restart():
        # Not shown before: that its module patches too late is true here, and no longer after the restart.
        if plan.supervisor and not is_supervised():
            _supervise(config, plan)
        bootstrap.restart_patched()
    for warning in caught:
        warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    return worker_class


# ---- checks, before anything is written anywhere ----


def _check_logging(plan: _Plan) -> None:
    if plan.verbose and plan.quiet:
        raise CommandError('Flags --verbose and --quiet are mutually exclusive. Leave one of them out.')
    if plan.logging_level is not None and plan.logging_level.upper() not in logging.getLevelNamesMapping():
        raise CommandError(f'Unknown logging level {plan.logging_level!r}: choose DEBUG, INFO, WARNING or ERROR.')
    try:
        logging.Formatter(plan.log_format, plan.date_format)
    except ValueError as error:
        raise CommandError(f'Invalid --log-format {plan.log_format!r}: {one_line(error)}.') from None


def _check(plan: _Plan, worker_class: type[BaseWorker], config: Config) -> None:
    if plan.dequeue_strategy not in STRATEGIES:
        raise CommandError(
            f'Dequeue Strategy can only be one of {", ".join(STRATEGIES)}: {plan.dequeue_strategy!r} is unknown.'
        )
    if not getattr(worker_class, 'accepts_concurrency', False):
        _refuse_concurrent_options(plan, config)


def _refuse_concurrent_options(plan: _Plan, config: Config) -> None:
    if plan.concurrent_arguments:
        given = ' and '.join(f'--{name.replace("_", "-")}' for name in plan.concurrent_arguments)
        raise CommandError(
            f'{given} cannot be used with {config.worker_class_name}, which does not run jobs concurrently. '
            f'Use -w gevent, or leave out {given}.'
        )
    if plan.processes > 1:
        raise CommandError(
            f'--processes {plan.processes} cannot be used with {config.worker_class_name}. '
            f'Use -w gevent, or `greenq worker-pool -n {plan.processes}`.'
        )


def configure_logging(dict_config: dict[str, Any] | None) -> None:
    if not dict_config:
        return
    import logging.config

    try:
        logging.config.dictConfig(dict_config)
    except (ValueError, TypeError, AttributeError, ImportError) as error:
        cause = f' ({one_line(error.__cause__)})' if error.__cause__ else ''
        raise CommandError(f'Cannot use DICT_CONFIG of the settings: {one_line(error)}{cause}.') from error


def import_handler(name: str) -> Callable[..., Any]:
    from greenq.utils import import_attribute

    try:
        handler = import_attribute(name)
    except Exception as error:
        raise CommandError(
            f'Cannot import exception handler {name!r}: {one_line(error)}. '
            f'Give --exception-handler a dotted path that can be imported from here.'
        ) from error
    if not callable(handler):
        raise CommandError(f'Exception handler {name!r} is not callable: give the dotted path of a function.')
    return handler  # type: ignore[no-any-return]


def _write_pid(path: str) -> None:
    try:
        with open(os.path.expanduser(path), 'w') as file:
            file.write(str(os.getpid()))
    except OSError as error:
        raise CommandError(
            f'Cannot write the process id to {path!r}: {error.strerror}. Give --pid another file.'
        ) from error


def _refuse_while_suspended(config: Config) -> None:
    from greenq.suspension import is_suspended

    if is_suspended(config.connection):
        click.secho('RQ is currently suspended, to resume job execution run "rq resume"', fg='red')
        sys.exit(1)


# ---- the worker ----


def _build(
    worker_class: type[BaseWorker],
    config: Config,
    plan: _Plan,
    queue_names: Sequence[str],
    handlers: list[Callable[..., Any]],
) -> BaseWorker:
    return worker_class(
        [config.queue(name) for name in chosen_queues(queue_names, config)],
        name=os.environ.pop(bootstrap.NAME_VARIABLE, None) or plan.name or config.settings.get('NAME'),
        connection=config.connection,
        worker_ttl=plan.worker_ttl,
        default_result_ttl=plan.results_ttl,
        maintenance_interval=plan.maintenance_interval,
        job_monitoring_interval=plan.job_monitoring_interval,
        job_class=config.job_class,
        queue_class=config.queue_class,
        exception_handlers=handlers or None,
        disable_default_exception_handler=plan.disable_default_exception_handler,
        log_job_description=not plan.disable_job_desc_logging,
        serializer=config.serializer,
        **plan.own_arguments,
    )


def chosen_queues(queue_names: Sequence[str], config: Config) -> Sequence[str]:
    names = queue_names or config.settings.get('QUEUES') or 'default'
    return [names] if isinstance(names, str) else names


def _run(instance: BaseWorker, plan: _Plan) -> int:
    """Runs the worker to its end; returns the exit status of the process."""
    from greenq.worker import DequeueStrategy

    instance.work(
        burst=plan.burst,
        logging_level=plan.level,
        date_format=plan.date_format,
        log_format=plan.log_format,
        max_jobs=plan.max_jobs,
        max_idle_time=plan.max_idle_time,
        with_scheduler=plan.with_scheduler,
        dequeue_strategy=DequeueStrategy(plan.dequeue_strategy),
    )
    return instance.exit_status


# ---- the supervisor ----


def _is_to_be_supervised(config: Config, plan: _Plan) -> bool:
    return plan.supervisor and bootstrap.may_restart() and config.worker_class_name in bootstrap.GEVENT_WORKER_NAMES


def _supervise(config: Config, plan: _Plan) -> NoReturn:
    """What else is wrong with the arguments, the workers say themselves."""
    # Not before it is needed: the workers parse the same command line.
    from greenq.supervision import Order

    if plan.pid:
        _write_pid(plan.pid)
    Order(
        plan.processes,
        plan.name or config.settings.get('NAME'),
        plan.own_arguments.get('grace', DEFAULT_GRACE_SECONDS),
        plan.worker_ttl,
        plan.level or 'INFO',
        plan.date_format,
        plan.log_format,
        given_options(),
    ).give()
