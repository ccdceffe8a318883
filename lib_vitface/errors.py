"""Errors with a sentence for the person: what is wrong, with which input, and what to do."""

from __future__ import annotations


class ViTFaceError(Exception):
    """Base of every error that is meant to be read by a person.

    `exit_code` is what the command line returns, `http_status` what the API answers.
    """

    exit_code = 1
    http_status = 500


class InputError(ViTFaceError):
    """An input or option cannot be used as it is (missing file, wrong format, out of range)."""

    exit_code = 2
    http_status = 400


class NoFaceError(InputError):
    """An input that must show a face shows none that can be used."""

    exit_code = 3
    http_status = 422


class ConsentError(ViTFaceError):
    """A consent record is missing, does not match, has expired or was revoked."""

    exit_code = 4
    http_status = 403


class MissingDependencyError(ViTFaceError):
    """An optional package or weight file is needed and not there; the message names how to get it."""

    exit_code = 5
    http_status = 501


class OutputError(ViTFaceError):
    """The result cannot be written (not writable, disk full)."""

    exit_code = 6
    http_status = 507


class CheckpointError(InputError):
    """A model folder or checkpoint is damaged, of another version, or of another architecture."""

    exit_code = 7
    http_status = 409


class Cancelled(ViTFaceError):  # noqa: N818 - reads as what happened, like asyncio.CancelledError's role
    """The person stopped the work; what was finished is kept and can be resumed."""

    exit_code = 130
    http_status = 409
