"""The operator's look at a database by an older version, whose code is on PYTHONPATH.

    python old_operator.py DATABASE_URL FOLDER

Connects and looks again and again; a line for each: `Reachable`, or the reason why it could not.
"""

import asyncio
import sys
from pathlib import Path

import openworkflow_operator
from openworkflow_operator.answers import Question
from openworkflow_operator.database import ConnectOptions, Database
from openworkflow_operator.diagnosis import diagnose
from openworkflow_operator.dsn import parse

URL, FOLDER = sys.argv[1:3]
assert Path(openworkflow_operator.__file__).is_relative_to(FOLDER), openworkflow_operator.__file__


async def look() -> str:
    """Whether a new connection can look."""
    try:
        database = await Database.connect(parse(URL), "public", ConnectOptions(allow_loopback=True))
        try:
            await database.look([Question("default", 100, 100, 20)], 1)
        finally:
            database.terminate()
    except Exception as error:
        return str(diagnose(error).reason)
    return "Reachable"


async def main() -> None:
    """Look until killed."""
    while True:
        print(await look(), flush=True)
        await asyncio.sleep(0.05)


if __name__ == "__main__":
    asyncio.run(main())
