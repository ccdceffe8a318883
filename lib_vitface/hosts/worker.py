"""The child process of a job: `python -m lib_vitface.hosts.worker JOB --workspace DIR`.

Takes the job, runs its task with the options in the store, and leaves result or error there; exits as the command line does.
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import threading
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

from lib_vitface import options
from lib_vitface.errors import Cancelled, ViTFaceError
from lib_vitface.jobs import Claim, JobStore
from lib_vitface.types import Host
from lib_vitface.ui.runner import PREFIX, task_named

log = logging.getLogger("vitface")


def work(claim: Claim, host: Host) -> None:
    """Runs the claimed job's task; its result goes into the store. `host.tick` may raise `Cancelled`."""
    task = task_named(claim.job.kind.removeprefix(PREFIX))
    ready: Any = options.build(task.options, claim.job.options)

    def tick(done: float, total: float, note: str = "") -> None:
        host.tick(done, total, note)
        claim.progress(done, total, note)

    result = task.run(ready, replace(host, tick=tick, device=getattr(ready, "device", host.device)))
    claim.finish(result)


def perform(job_id: str, host: Host) -> None:
    """Takes a job, does it, and leaves result or error in the store; the error is raised as well."""
    with JobStore(host.workspace).claim(job_id) as claim:
        try:
            work(claim, host)
        except Exception as error:
            known = error if isinstance(error, ViTFaceError) else ViTFaceError()
            kind = {"kind": type(error).__name__, "exit_code": known.exit_code, "http_status": known.http_status}
            if not isinstance(error, Cancelled):
                claim.add_chunk("error", 0, data=kind)
            raise


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("job")
    parser.add_argument("--workspace", type=Path, required=True)
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    stopped = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        stopped.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)

    def tick(done: float, total: float, note: str = "") -> None:
        if stopped.is_set():
            raise Cancelled("Stopped; what was finished is kept, start it again to go on.")

    try:
        perform(given.job, Host(given.workspace, tick=tick))
    except ViTFaceError as error:
        log.error("%s", error)
        return error.exit_code
    log.info("Done.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
