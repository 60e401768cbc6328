"""The web as tools see it: pages and searches."""
