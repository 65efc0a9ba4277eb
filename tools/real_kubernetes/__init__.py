"""A real Kubernetes control plane on this machine, to keep the stand-in's own honest."""
