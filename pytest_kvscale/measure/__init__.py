"""Measuring: what a watch told of each VMI, and the figures that follow from it."""
