"""What PostgreSQL's SQLSTATEs mean to us: whose fault an error is, which decides what we do.

One table for everybody who talks to the database. The longest entry that a code begins with holds.
A code that is not listed is of the tables: such a row is neither given up, nor does it keep others
waiting.
"""

from openworkflow.core.errors import Fault

FAULTS: dict[str, tuple[Fault, str]] = {
    # The row itself: no other server, and no other day, would take it.
    "22": (Fault.VALUE, "data: a character, number or JSON that PostgreSQL cannot hold"),
    "54": (Fault.VALUE, "a limit of PostgreSQL's: nested too deep, a text too long for jsonb"),
    # The moment: another statement was in the way, and nothing took effect.
    "40001": (Fault.MOMENT, "serialization failure: rolled back in favour of another"),
    "40P01": (Fault.MOMENT, "deadlock: rolled back in favour of another"),
    "55P03": (Fault.MOMENT, "lock_timeout: somebody holds the row or table"),
    # Too much for one statement: the same in parts may pass.
    "57014": (Fault.SIZE, "statement_timeout, or canceled by hand"),
    "25P04": (Fault.SIZE, "transaction_timeout"),
    "53200": (Fault.SIZE, "out of memory"),
    "53400": (Fault.SIZE, "temp_file_limit"),
    # The server, or the way to it: whatever is sent now fares alike.
    "08": (Fault.SERVER, "the connection broke"),
    "28": (Fault.SERVER, "the login is refused; a pooler says so in the middle of things"),
    "3D": (Fault.SERVER, "no such database: being restored, or renamed"),
    "40003": (Fault.SERVER, "completion unknown: lost in the middle of a commit"),
    "53": (Fault.SERVER, "out of connections or disk"),
    "57": (Fault.SERVER, "shut down, starting up, or the connection ended by an administrator"),
    "25006": (Fault.SERVER, "read-only: a standby, or a primary that became one"),
    "25P03": (Fault.SERVER, "idle_in_transaction_session_timeout"),
    # Ours: the statement is wrong whatever the tables are, and will be the next time.
    "25": (Fault.OURS, "a transaction in the wrong state"),
    "26": (Fault.OURS, "no such prepared statement"),
    "34": (Fault.OURS, "no such cursor"),
    "42601": (Fault.OURS, "syntax"),
    "42P02": (Fault.OURS, "no such parameter"),
    "42P18": (Fault.OURS, "a parameter of unknown type"),
    # What somebody did to the tables. It may concern some rows only, and it may pass.
    "0A": (Fault.TABLE, "a rule on a table, or a server that lacks what others have"),
    "21": (Fault.TABLE, "rows that a key kept from being there twice, which is gone"),
    "23": (Fault.TABLE, "a constraint that was added, or no partition for the row"),
    "42501": (Fault.TABLE, "a right that was revoked, or row-level security"),
    "42": (Fault.TABLE, "a table, column, type, index or function changed or missing"),
    "44": (Fault.TABLE, "a view's check option"),
    "58": (Fault.TABLE, "the disk: a page cannot be read or written"),
    "P0": (Fault.TABLE, "a trigger raised it"),
    "XX": (Fault.TABLE, "an internal error of PostgreSQL's, such as a damaged page"),
}
"""By SQLSTATE, or the beginning of some: whose fault it is, and why we say so."""


def fault_of(sqlstate: str | None) -> Fault:
    """Whose fault an error with this SQLSTATE is."""
    state = sqlstate or ""
    for length in (5, 2):
        if (found := FAULTS.get(state[:length])) is not None:
            return found[0]
    return Fault.TABLE
