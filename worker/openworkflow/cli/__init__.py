"""The command `openworkflow`: one module a command, and what they share."""
