"""Takes runs off the queue and hands them to the runtime. Thin."""
