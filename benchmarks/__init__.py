"""Speed, memory and long-run accuracy of the simulator itself; never timed tests."""
