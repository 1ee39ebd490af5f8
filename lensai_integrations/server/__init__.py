"""A server that takes what LensAI devices upload, and holds it against a baseline hour by hour.

In: uploads over HTTP, by devices that are trusted with nothing. Out: verdicts as pages, JSON, metrics, and in MLflow.
Knows no framework; what one sender may take is bounded everywhere.
"""
