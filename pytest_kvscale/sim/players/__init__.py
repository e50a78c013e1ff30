"""The embedded cluster's components, each acting only through `sim.client.Client`."""
