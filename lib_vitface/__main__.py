"""`python -m lib_vitface`."""

from __future__ import annotations

import os
import sys


def main() -> int:
    """Run the command line, heavy tasks in a process whose memory settings suit them (they must be set before it starts)."""
    from lib_vitface.cli import main as run
    from lib_vitface.cli import wants_own_process

    if os.name == "posix" and wants_own_process(sys.argv[1:]) and "VITFACE_CHILD" not in os.environ:
        from lib_vitface.device import child_environment

        environment = {**os.environ, **child_environment(), "VITFACE_CHILD": "1"}
        os.execve(sys.executable, [sys.executable, "-m", "lib_vitface", *sys.argv[1:]], environment)
    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
