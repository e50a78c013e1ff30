"""Showing: results file, HTML, plots, JUnit and the table on the terminal."""
