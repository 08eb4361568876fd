"""Webhooks: what they accept, how they are stored, and what reaches a real HTTP server."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace
from typing import Any

import pytest
import rq.webhook

from greenq.webhook import Webhook, decode_webhooks, encode_webhooks

URL = 'https://example.com/hook'

# As much of a job as a webhook looks at.
JOB: Any = SimpleNamespace(id='j1', func_name='app.f', enqueued_at=datetime(2024, 1, 2, tzinfo=UTC), ended_at=None)


class Endpoint:
    """An HTTP server that remembers requests and answers with `status`."""

    def __init__(self) -> None:
        self.status = 200
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get('Content-Length', 0)))
                endpoint.requests.append((self.command, self.path, dict(self.headers), body))
                self.send_response(endpoint.status)
                self.end_headers()

            do_POST = do_GET

            def log_message(self, format: str, *args: Any) -> None:
                """Keep the test's output clean."""

        self.server = HTTPServer(('127.0.0.1', 0), Handler)
        self.url = f'http://127.0.0.1:{self.server.server_port}/hook?x=1'


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    endpoint = Endpoint()
    thread = threading.Thread(target=endpoint.server.serve_forever, kwargs={'poll_interval': 0.01})
    thread.start()
    yield endpoint
    endpoint.server.shutdown()
    thread.join()
    endpoint.server.server_close()


def test_the_defaults() -> None:
    webhook = Webhook(URL, 'finished')
    assert (webhook.method, webhook.headers, webhook.timeout) == ('GET', None, 10)


@pytest.mark.parametrize(
    ('arguments', 'complaint'),
    [
        ({'url': 'ftp://example.com'}, 'url must be'),
        ({'url': 'http://'}, 'url must be'),
        ({'url': None}, 'url must be'),
        ({'job_status': 'queued'}, 'job_status must be'),
        ({'method': 'PUT'}, 'method must be'),
        ({'headers': ['a']}, 'headers must be'),
        ({'timeout': 0}, 'timeout must be'),
        ({'timeout': 1.5}, 'timeout must be'),
    ],
)
def test_what_makes_no_request_is_refused_by_name(arguments: dict[str, Any], complaint: str) -> None:
    with pytest.raises((ValueError, TypeError), match=complaint) as caught:
        Webhook(**{'url': URL, 'job_status': 'finished', **arguments})
    assert repr(next(iter(arguments.values()))) in str(caught.value)


def test_method_headers_and_timeout_are_named() -> None:
    with pytest.raises(TypeError):
        Webhook(URL, 'finished', 'POST')  # type: ignore[call-arg]


def test_the_stored_form_is_rqs() -> None:
    ours = Webhook(URL, 'failed', method='POST', headers={'X-Key': 'v'}, timeout=3)
    theirs = rq.webhook.Webhook(URL, 'failed', method='POST', headers={'X-Key': 'v'}, timeout=3)
    assert encode_webhooks([ours]) == json.dumps([theirs.to_dict()])
    assert decode_webhooks(encode_webhooks([ours]).encode()) == [ours]


def test_fields_may_be_missing_or_new() -> None:
    stored = json.dumps([{'url': URL, 'job_status': 'finished', 'colour': 'red'}])
    assert decode_webhooks(stored) == [Webhook(URL, 'finished')]


@pytest.mark.parametrize('damaged', ['', 'no json', '[{}]', '[{"url": "x", "job_status": "finished"}]', '[1]', '1'])
def test_a_damaged_field_raises(damaged: str) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        decode_webhooks(damaged)


def test_a_get_carries_the_headers(endpoint: Endpoint) -> None:
    Webhook(endpoint.url, 'finished', headers={'X-Key': 'secret'}).send(JOB)
    [(method, path, headers, body)] = endpoint.requests
    assert (method, path, body) == ('GET', '/hook?x=1', b'')
    assert headers['X-Key'.title()] == 'secret'


def test_a_post_tells_what_happened(endpoint: Endpoint) -> None:
    Webhook(endpoint.url, 'failed', method='POST').send(JOB, exc_string='Traceback')
    [(method, _, headers, body)] = endpoint.requests
    assert (method, headers['Content-Type']) == ('POST', 'application/json')
    assert json.loads(body) == {
        'job_id': 'j1',
        'func_name': 'app.f',
        'status': 'failed',
        'enqueued_at': '2024-01-02T00:00:00+00:00',
        'ended_at': None,
        'exc_info': 'Traceback',
    }


def test_only_a_failure_has_a_traceback() -> None:
    assert 'exc_info' not in Webhook(URL, 'finished', method='POST').get_payload(JOB, exc_string='Traceback')


def test_headers_of_ones_own_win(endpoint: Endpoint) -> None:
    Webhook(endpoint.url, 'finished', method='POST', headers={'Content-Type': 'text/x-own'}).send(JOB)
    assert endpoint.requests[0][2]['Content-Type'] == 'text/x-own'


def test_a_refusal_is_logged_and_not_raised(endpoint: Endpoint, caplog: pytest.LogCaptureFixture) -> None:
    endpoint.status = 500
    with caplog.at_level(logging.WARNING):
        Webhook(endpoint.url, 'finished').send(JOB)
    assert len(endpoint.requests) == 1
    assert f'Failed to send webhook to {endpoint.url} for job j1' in caplog.text
