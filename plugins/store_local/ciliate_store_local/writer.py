"""The thread that writes. What is asked for while it writes is committed together, with one wait for the disk."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass

from ciliate.store import Object, StoreError, UnavailableError

from ciliate_store_local.config import Options
from ciliate_store_local.database import Database
from ciliate_store_local.transaction import Writing

Operation = Callable[[Writing], Object]
"""Reads, decides, writes; gives the object's new state. What it raises before it writes concerns it alone."""

_MOST_AT_ONCE = 128


@dataclass(frozen=True)
class _Request:
    operation: Operation
    loop: asyncio.AbstractEventLoop
    answer: asyncio.Future[Object]

    def reply(self, result: Object | BaseException) -> None:
        """Answer in the caller's loop, which may be gone by now."""
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self._settle, result)

    def _settle(self, result: Object | BaseException) -> None:
        if self.answer.done():
            return
        if isinstance(result, BaseException):
            self.answer.set_exception(result)
        else:
            self.answer.set_result(result)


class Writer:
    """Owns the process's writing connection. An operation has been committed when `run` returns."""

    def __init__(self, database: Database, options: Options, committed: Callable[[set[str]], None]) -> None:
        """committed: called after each commit, in the writing thread, with the resources that changed."""
        self._database = database
        self._options = options
        self._committed = committed
        self._connection = database.connect()
        self._requests: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="store-writer", daemon=True)
        self._thread.start()

    async def run(self, operation: Operation) -> Object:
        """Do an operation. It is done even if the caller is cancelled. Raises what it raises, UnavailableError."""
        if self._closed:
            raise UnavailableError(f"store {self._database.path} is closed in this process")
        loop = asyncio.get_running_loop()
        request = _Request(operation, loop, loop.create_future())
        self._requests.put(request)
        return await request.answer

    def close(self) -> None:
        """Finish what was asked for and stop. Waits for that."""
        if not self._closed:
            self._closed = True
            self._requests.put(None)
            self._thread.join()
            self._connection.close()

    def _work(self) -> None:
        while (request := self._requests.get()) is not None:
            batch, last = [request], False
            while len(batch) < _MOST_AT_ONCE and not self._requests.empty():
                following = self._requests.get()
                if following is None:
                    last = True
                    break
                batch.append(following)
            self._commit(batch)
            if last:
                return

    def _commit(self, batch: list[_Request]) -> None:
        results: list[Object | BaseException] = []
        try:
            with self._database.errors(), self._database.transaction(self._connection, write=True):
                writing = Writing(self._connection, self._options)
                results = [_outcome(request.operation, writing) for request in batch]
                writing.finish()
        except BaseException as error:
            if len(batch) > 1 and isinstance(error, UnavailableError):
                # One large object may be what doesn't fit: the others are not to suffer for it.
                for request in batch:
                    self._commit([request])
                return
            results = [error] * len(batch)
        else:
            if writing.touched:
                self._committed(writing.touched)
        for request, result in zip(batch, results, strict=True):
            request.reply(result)


def _outcome(operation: Operation, writing: Writing) -> Object | BaseException:
    """An operation's result, or its refusal; SQLite's errors go through and undo the transaction."""
    try:
        return operation(writing)
    except StoreError as error:
        return error
