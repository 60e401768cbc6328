"""Clients of MCP servers, and their tools as an agent's."""
