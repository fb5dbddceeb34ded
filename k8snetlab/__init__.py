"""The networks of Kubernetes, computed from manifests."""
