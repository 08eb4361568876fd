-- Returns what a worker was handed while it waited, and cannot run at once, to the front of its queues.
-- KEYS: the worker's parked list
-- ARGV: worker name
-- Returns how many ids went back.
--- @include unpark

return unpark(ARGV[1])
