"""RQ's own released test suite, run against greenq: `python -m tests.conformance`. What it shows is in README.md."""
