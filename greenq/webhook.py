"""An HTTP request to make when a job has ended: what it is, how it is stored, how it is sent; not when."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from dataclasses import KW_ONLY, asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from urllib.request import Request

    from greenq.job import Job

logger = logging.getLogger('greenq.webhook')


@dataclass
class Webhook:
    """Ask `url` when a job becomes `job_status`; a POST carries what happened as JSON. `timeout` in seconds.

    ValueError or TypeError for arguments that make no request.
    """

    url: str
    job_status: Literal['finished', 'failed']
    _: KW_ONLY
    method: Literal['GET', 'POST'] = 'GET'
    headers: dict[str, str] | None = None
    timeout: int = 10

    def __post_init__(self) -> None:
        if not _is_http_url(self.url):
            raise ValueError(f'url must be an http:// or https:// URL, got {self.url!r}')
        if self.job_status not in ('finished', 'failed'):
            raise ValueError(f"job_status must be 'finished' or 'failed', got {self.job_status!r}")
        if self.method not in ('GET', 'POST'):
            raise ValueError(f"method must be 'GET' or 'POST', got {self.method!r}")
        if self.headers and not isinstance(self.headers, dict):
            raise TypeError(f'headers must be a dict or None, got {self.headers!r}')
        if not isinstance(self.timeout, int) or self.timeout <= 0:
            raise ValueError(f'timeout must be a positive integer, got {self.timeout!r}')

    def to_dict(self) -> dict[str, Any]:
        """The fields by name, fit for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Webhook:
        """The reverse of `to_dict`. Fields that a later version may have added are left out."""
        optional = {name: data[name] for name in ('method', 'headers', 'timeout') if name in data}
        return cls(data['url'], data['job_status'], **optional)

    def get_payload(self, job: Job, *, exc_string: str | None = None) -> dict[str, Any]:
        """The body of a POST; `exc_string` is the traceback of a failed job."""
        payload: dict[str, Any] = {
            'job_id': job.id,
            'func_name': job.func_name,
            'status': self.job_status,
            'enqueued_at': job.enqueued_at.isoformat() if job.enqueued_at else None,
            'ended_at': job.ended_at.isoformat() if job.ended_at else None,
        }
        if self.job_status == 'failed':
            payload['exc_info'] = exc_string
        return payload

    def send(self, job: Job, *, exc_string: str | None = None) -> None:
        """Make the request. A failure is logged and never raised: it must not change what happened to the job."""
        try:
            with urlopen(self._request(job, exc_string), timeout=self.timeout):
                pass
        except Exception:
            logger.warning('Failed to send webhook to %s for job %s', self.url, job.id, exc_info=True)

    def _request(self, job: Job, exc_string: str | None) -> Request:
        from urllib.request import Request

        if self.method == 'GET':
            return Request(self.url, headers=self.headers or {}, method='GET')
        body = json.dumps(self.get_payload(job, exc_string=exc_string)).encode('utf-8')
        headers = {'Content-Type': 'application/json', **(self.headers or {})}
        return Request(self.url, data=body, headers=headers, method='POST')


def urlopen(request: Request, timeout: float) -> Any:
    """As urllib's, which only the few processes that need it import."""
    from urllib import request as urllib_request

    return urllib_request.urlopen(request, timeout=timeout)


def _is_http_url(url: Any) -> bool:
    if not isinstance(url, str):
        return False
    parts = urlsplit(url)
    return parts.scheme in ('http', 'https') and bool(parts.netloc)


def encode_webhooks(webhooks: Iterable[Webhook]) -> str:
    """The job hash's field `webhooks`."""
    return json.dumps([webhook.to_dict() for webhook in webhooks])


def decode_webhooks(field: bytes | str) -> list[Webhook]:
    """The webhooks in a job hash's field; ValueError, KeyError or TypeError when it is damaged."""
    return [Webhook.from_dict(data) for data in json.loads(field)]
