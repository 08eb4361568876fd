"""What this process runs now. It is the only thing that the worker's parts share; it does no I/O."""

from collections.abc import Iterator

from greenq.executions import Execution


class InFlight(dict[str, Execution]):
    """The executions of this process by execution id; also RQ's `worker.executions`."""

    def of_job(self, job_id: str) -> Iterator[Execution]:
        """The executions of a job, of which there is mostly one."""
        return (execution for execution in tuple(self.values()) if execution.job_id == job_id)

    def triples(self) -> list[tuple[str, str, str]]:
        """(job id, execution id, queue) of each, as the store takes them, oldest first."""
        return [triple(execution) for execution in tuple(self.values())]


def triple(execution: Execution) -> tuple[str, str, str]:
    """(job id, execution id, queue) of an execution."""
    return execution.job_id, execution.id, execution.queue_name
