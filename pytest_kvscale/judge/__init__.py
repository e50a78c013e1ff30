"""Deciding: failure classes, objectives and verdicts, as pure functions over measured data."""
