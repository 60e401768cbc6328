"""The durable thread: its runs, journal, conversation and event stream in Redis."""
