"""What is measured: functions from a batch to numbers per row, each formula written once."""
