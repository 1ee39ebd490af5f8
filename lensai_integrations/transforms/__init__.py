"""torchvision: transforms for pipelines of `torchvision.transforms.v2`."""
