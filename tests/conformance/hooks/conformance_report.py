"""A pytest plugin that tells the runner, line by line of a file, which test began and how each ended."""

from __future__ import annotations

import faulthandler
import json
import os
from typing import Any

import pytest

TEST_SECONDS = 75
"""How long one test may take. RQ's longest takes half of that."""

_PID = os.getpid()
_outcomes: dict[str, tuple[str, str]] = {}


def pytest_collectreport(report: pytest.CollectReport) -> None:
    if report.failed:
        _tell(broken=_reason(report))


def pytest_runtest_logstart(nodeid: str) -> None:
    _tell(began=nodeid)
    faulthandler.dump_traceback_later(TEST_SECONDS, exit=True)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    outcome, _ = _outcomes.get(report.nodeid, ('passed', ''))
    if outcome == 'passed' and report.outcome != 'passed':
        _outcomes[report.nodeid] = (report.outcome, _reason(report))


def pytest_runtest_logfinish(nodeid: str) -> None:
    faulthandler.cancel_dump_traceback_later()
    outcome, reason = _outcomes.get(nodeid, ('passed', ''))
    _tell(ended=nodeid, outcome=outcome, reason=reason)


def _tell(**event: Any) -> None:
    if os.getpid() != _PID:
        os._exit(77)  # a forked worker that came back out of the test: it must not run the rest of the suite
    with open(os.environ['CONFORMANCE_REPORT'], 'a') as file:
        file.write(f'{json.dumps(event)}\n')


def _reason(report: pytest.CollectReport | pytest.TestReport) -> str:
    crash = getattr(report.longrepr, 'reprcrash', None)
    text = crash.message if crash else str(report.longrepr)
    return (text.strip() or '?').splitlines()[0 if crash else -1][:300]
