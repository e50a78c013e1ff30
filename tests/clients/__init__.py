"""The embedded cluster and clients that were not made for it."""
