"""Agents between the routes and what they rest on: SQL, the workers' catalogue, durable runs."""
