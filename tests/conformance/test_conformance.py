"""RQ's suite passes on greenq, but for what README.md explains."""

import pytest

from tests.conformance.__main__ import main

pytestmark = pytest.mark.conformance


def test_rqs_own_tests_pass() -> None:
    assert main([]) == 0
