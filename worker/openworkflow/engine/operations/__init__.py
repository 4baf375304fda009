"""What a workflow function can ask for; a file for each kind of operation."""
