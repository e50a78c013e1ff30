"""What the repository's own tests need."""

pytest_plugins = ["pytester"]
