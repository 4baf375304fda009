"""The client for code that blocks; all but `line` and `loop_thread` is written by a program."""
