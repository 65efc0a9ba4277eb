"""One run across processes: who makes the cluster, who may disturb it, who removes it."""
