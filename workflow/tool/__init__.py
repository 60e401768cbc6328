"""The agent's tools, written once against the sandbox protocol. Each stands beside its description, a .md file."""
