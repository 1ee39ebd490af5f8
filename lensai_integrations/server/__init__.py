"""A server that takes what LensAI devices upload, and holds it against a baseline hour by hour."""
