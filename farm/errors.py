"""The error tree of the farm. Only `Retryable` is ever tried again.

    FarmError
    |-- Fatal                 the same input will fail again: record it, go on with the rest
    |   |-- BadVideo          bytes that are no video we can read; becomes the verdict UNREADABLE
    |   |-- BadInput          an argument, manifest or setting the user has to mend
    |   |   `-- NothingToScan what was named holds no video
    |   |-- BadObject         a stored object that does not parse (corrupt batch, wrong shape)
    |   |-- BadModel          weights and card that do not belong together, or that an engine cannot run
    |   |-- SchemaBehind      the database is older (or newer) than the code: run `farm db upgrade`
    |   `-- EngineMissing     the engine's runtime or card is not on this machine; never replaced silently
    `-- Retryable             the world was away: a later attempt can succeed
        |-- StorageAway       object storage did not answer, or its disk is full
        |-- DatabaseAway      SQL did not answer
        |-- QueueAway         Redis did not answer
        `-- EngineBusy        the engine or card died, hung or refused for now
            `-- CardQuarantined  this card cannot be trusted: the batch may be tried elsewhere, the worker takes no more

A message says what was wrong, with which input, and what the user can do.
"""


class FarmError(Exception):
    """Root of everything the farm raises on purpose."""


class Fatal(FarmError):
    """Trying again cannot help."""


class BadVideo(Fatal):
    """The bytes are not a video that can be read."""


class BadInput(Fatal):
    """An argument, manifest or setting is wrong."""


class NothingToScan(BadInput):
    """What was named holds no video."""


class BadObject(Fatal):
    """A stored object does not parse."""


class BadModel(Fatal):
    """Weights and model card disagree, or the engine cannot run them."""


class SchemaBehind(Fatal):
    """The database schema is not the one this code was written for."""


class EngineMissing(Fatal):
    """The engine asked for is not available on this machine."""


class Retryable(FarmError):
    """A later attempt can succeed."""


class StorageAway(Retryable):
    """Object storage did not answer or could not write."""


class DatabaseAway(Retryable):
    """The database did not answer."""


class QueueAway(Retryable):
    """Redis did not answer."""


class EngineBusy(Retryable):
    """The engine or card died, hung, or refused for now."""


class CardQuarantined(EngineBusy):
    """The card answered wrongly or fails again and again: another card can do the batch, this worker takes no more."""
