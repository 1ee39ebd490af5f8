"""What every training adapter shares: options, passes that become profiles, problems, checkpoints' bytes, the end.

Nothing here knows a framework. An adapter catches batches and layers' answers in its own way and hands them to a
`Recording`; from there on it is the same for all. Out comes a baseline: on disk, calibrated, logged.
"""
