"""The discrete-event engine: clock, KV memory, batches in flight, replicas, cluster, recorder."""
