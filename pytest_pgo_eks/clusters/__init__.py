"""Where Kubernetes comes from: one provider per kind of cluster."""
