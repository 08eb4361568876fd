"""Orders to a worker, sent over its channel: how they are written, and what a worker does on each."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from greenq.connections import resolve_connection
from greenq.exceptions import InvalidJobOperation
from greenq.executions import Execution
from greenq.job import Job
from greenq.serializers import Serializer
from greenq.store import keys
from greenq.utils import as_text

if TYPE_CHECKING:
    from redis import Redis

    from greenq.worker import BaseWorker

PUBSUB_CHANNEL_TEMPLATE = keys.channel('%s')


def send_command(connection: Redis | None, worker_name: str, command: str, **kwargs: Any) -> int:
    """Send a command with its arguments to a worker; returns how many listened (0: no such worker)."""
    payload = json.dumps({'command': command, **kwargs})
    return int(resolve_connection(connection).publish(keys.channel(worker_name), payload))


def send_shutdown_command(connection: Redis | None, worker_name: str) -> None:
    """Have a worker finish what it runs and stop, as on Ctrl-C."""
    send_command(connection, worker_name, 'shutdown')


def send_quiet_command(connection: Redis | None, worker_name: str) -> None:
    """Have a worker take no more jobs; it goes on with those that it has, and stays until it is told to stop."""
    send_command(connection, worker_name, 'quiet')


def send_kill_horse_command(connection: Redis | None, worker_name: str) -> None:
    """Have a worker kill what it runs; its jobs count as failed."""
    send_command(connection, worker_name, 'kill-horse')


def send_stop_job_command(connection: Redis | None, job_id: str, serializer: Serializer | str | None = None) -> None:
    """Stop a job that runs. InvalidJobOperation if no worker has it, NoSuchJobError if there is no such job."""
    job = Job.fetch(job_id, connection=connection, serializer=serializer)
    if not job.worker_name:
        raise InvalidJobOperation(f'Job {job_id} is not currently executing: cancel it instead')
    send_command(connection, job.worker_name, 'stop-job', job_id=job_id)


def send_stop_execution_command(connection: Redis | None, job_id: str, execution_id: str) -> None:
    """Stop one execution of a job. InvalidJobOperation if it does not run."""
    try:
        execution = Execution.fetch(id=execution_id, job_id=job_id, connection=resolve_connection(connection))
    except ValueError:
        raise InvalidJobOperation(f'Execution {execution_id} of job {job_id} is not running') from None
    send_command(connection, execution.worker_name, 'stop-execution', job_id=job_id, execution_id=execution_id)


def parse_payload(payload: Mapping[str, Any]) -> dict[str, Any]:
    """The command and its arguments in a message of the channel. ValueError if it is none."""
    command = json.loads(as_text(payload['data']))
    if not isinstance(command, dict) or not isinstance(command.get('command'), str):
        raise ValueError(f'Not a command: {payload["data"]!r}')
    return command


def handle_command(worker: BaseWorker, payload: Mapping[str, Any]) -> None:
    """Have a worker carry a command out. One that it does not know is ignored."""
    handler = _HANDLERS.get(payload['command'])
    if handler is None:
        worker.log.warning('Unknown command %r ignored', payload['command'])
        return
    handler(worker, payload)


def handle_shutdown_command(worker: BaseWorker, payload: Mapping[str, Any] | None = None) -> None:
    """Stop as on Ctrl-C."""
    worker.log.info('Received shutdown command, sending SIGINT signal.')
    os.kill(os.getpid(), signal.SIGINT)


def handle_quiet_command(worker: BaseWorker, payload: Mapping[str, Any]) -> None:
    """Take no more jobs."""
    worker.request_quiet(None, None)


def handle_kill_worker_command(worker: BaseWorker, payload: Mapping[str, Any]) -> None:
    """Kill the child that runs a job, if there is one."""
    worker.log.info('Received kill horse command.')
    if worker.horse_pid:
        worker.kill_horse()
    else:
        worker.log.info('Worker is not working, kill horse command ignored')


def handle_stop_execution_command(worker: BaseWorker, payload: Mapping[str, Any]) -> None:
    """Stop one execution."""
    worker.request_stop_execution(payload.get('execution_id', ''))


def handle_stop_job_command(worker: BaseWorker, payload: Mapping[str, Any]) -> None:
    """Stop a job if it is what the worker runs."""
    worker.request_stop_job(payload.get('job_id', ''))


_HANDLERS: dict[str, Callable[[BaseWorker, Mapping[str, Any]], None]] = {
    'shutdown': handle_shutdown_command,
    'quiet': handle_quiet_command,
    'kill-horse': handle_kill_worker_command,
    'stop-execution': handle_stop_execution_command,
    'stop-job': handle_stop_job_command,
}
