"""Other queues, as their users set them up: a module for each, run in its own virtual environment.

Each module turns the library's logging off, registers the jobs, and has `connect()`, which returns a producer (see
`benchmarks.produce`). Only `benchmarks.contenders` knows the commands that start the workers.
"""
