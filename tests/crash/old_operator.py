"""The operator's look at a database by an older version, whose code is on PYTHONPATH.

    python old_operator.py DATABASE_URL FOLDER

Connects and looks again and again; a line for each: `Reachable`, or the reason why it could not.
"""

import asyncio
import sys
from importlib import import_module
from pathlib import Path

import openworkflow_operator

URL, FOLDER = sys.argv[1:3]
assert Path(openworkflow_operator.__file__).is_relative_to(FOLDER), openworkflow_operator.__file__

# By name: that version has its modules in one folder, and the checks of this one know only wings.
answers, connection, diagnosis, dsn = (
    import_module(f"openworkflow_operator.{name}")
    for name in ("answers", "database", "diagnosis", "dsn")
)


async def look() -> str:
    """Whether a new connection can look."""
    options = connection.ConnectOptions(allow_loopback=True)
    try:
        database = await connection.Database.connect(dsn.parse(URL), "public", options)
        try:
            await database.look([answers.Question("default", 100, 100, 20)], 1)
        finally:
            database.terminate()
    except Exception as error:
        return str(diagnosis.diagnose(error).reason)
    return "Reachable"


async def main() -> None:
    """Look until killed."""
    while True:
        print(await look(), flush=True)
        await asyncio.sleep(0.05)


if __name__ == "__main__":
    asyncio.run(main())
