"""What the stages share: resources as strict models, services and endpoints, proxies, the snapshot of a mesh."""
