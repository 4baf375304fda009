"""`python -m openworkflow` is the command `openworkflow`."""

from openworkflow.cli.main import main

if __name__ == "__main__":
    main()
