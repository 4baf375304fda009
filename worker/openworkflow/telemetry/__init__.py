"""What a worker tells of itself: metrics and logs. Knows nothing of runs but their names."""
