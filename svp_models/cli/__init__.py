"""Runs API-format workflows without the host, and the svp command line."""
