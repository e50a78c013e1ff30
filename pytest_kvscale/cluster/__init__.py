"""Connecting to a cluster: its clock, its API, watching, templates and settings."""
