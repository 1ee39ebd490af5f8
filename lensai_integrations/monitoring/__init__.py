"""A monitor beside a deployed model: batches in, windows judged, people told.

In: batches of production and a baseline. Out: events to sinks, alarms, a state that outlives the process. Never raises
into the service it watches. Knows no framework and no tracking server.
"""
