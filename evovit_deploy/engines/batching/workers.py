"""The threads of a batcher: workers that run batches, and one that watches deadlines and runs that hang."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable

from ...errors import EngineError, EvoVitError, Overloaded
from ..forking import watch
from .clock import Clock
from .queueing import RequestQueue, late, settle
from .requests import BatchRecord, Outputs, Request, Run, TransformChanged
from .runner import Runner

__all__ = ["Workers"]

MAX_HUNG = 4  # runs that may hang before giving up: each holds a thread, and memory of the engine, for ever


class Workers:
    """Takes requests, runs them in batches, answers them. See :class:`~evovit_deploy.serve.Batcher` for the arguments.

    A child that is forked gets none of the threads: there it starts again, with its own threads at the first request. A
    thread that dies of an error that nothing foresaw takes the whole with it: what waits is refused, and it is unhealthy.

    One lock guards everything; answers are given without it, since they run callbacks of the caller. The private methods
    below ``_serve`` and ``_guard`` whose text begins with "Locked" are called with it held.
    """

    def __init__(
        self, engine: Runner, *, max_batch: int, fixed: bool, delay: float, max_queue: int, workers: int, run_timeout: float,
        on_batch: Callable[[BatchRecord], None] | None, clock: Clock,
    ) -> None:  # fmt: skip
        self.engine = engine
        self._fixed = fixed
        self._max_batch, self._delay, self._max_queue, self._workers = max_batch, delay, max_queue, workers
        self._run_timeout, self._on_batch, self._clock = run_timeout, on_batch, clock
        self._closed = False
        self._reset()
        with self._lock:
            self._start()
        watch(self)

    def _reset(self) -> None:
        self.queue = RequestQueue()
        self._running: set[Run] = set()
        self._active = self._hung = 0
        self._started = False
        self._broken = ""  # what a thread died of
        self._wake = math.inf  # when the watching thread looks again
        self._lock = threading.Lock()
        self._work, self._watch, self._changed = (threading.Condition(self._lock) for _ in range(3))

    def _start(self) -> None:
        """Locked. Start the threads, unless they run."""
        if self._started or self._closed:
            return
        self._started = True
        for _ in range(self._workers):
            self._start_worker()
        threading.Thread(target=self._alive, args=(self._guard,), name="evovit-watch", daemon=True).start()

    def forked(self) -> None:
        """Start again in a forked child. What was accepted before is the parent's; whoever waits for it here gets an error."""
        accepted = [*self.queue, *(request for run in self._running for request in run.requests)]
        self._reset()
        for request in accepted:
            request.left_behind(
                EngineError("this request was accepted before the process was forked; the parent has its answer.")
            )

    @property
    def healthy(self) -> bool:
        """Not closed, no thread died, and a worker is left that does not hang."""
        return not self._closed and not self._broken and (self._active > 0 or not self._started)

    def accept(self, request: Request) -> None:
        """Queue a request.

        Raises:
            Overloaded: The queue is full or closed.
            EngineError: Every worker hangs, or a thread died.
        """
        with self._lock:
            if self._closed:
                raise Overloaded("closed: no more requests are taken.")
            if self._broken:
                raise self._dead()
            self._start()
            if not self._active:
                raise self._dead()
            if self.queue.images + request.count > self._max_queue:
                raise Overloaded(
                    f"{self.queue.images} images wait and the queue holds {self._max_queue}; try again later."
                )
            self.queue.put(request)
            self._work.notify()
            if request.deadline < self._wake:
                self._watch.notify()
        request.add_done_callback(self._forget)

    def _forget(self, request: object) -> None:
        """When a request is done: one that was cancelled gives its place in the queue back."""
        if isinstance(request, Request) and request.cancelled():
            with self._lock:
                self.queue.remove(request)
                request.images = None
                self._changed.notify_all()

    def replace(self, engine: Runner) -> Runner:
        """New batches run on ``engine``; returns the old one when no batch uses it any more."""
        with self._lock:
            old, self.engine = self.engine, engine
            while any(run.engine is old for run in self._running):
                self._changed.wait()
        return old

    def close(self, *, drain: bool, timeout: float | None) -> int:
        """See :meth:`Batcher.close`."""
        until = math.inf if timeout is None else self._clock.now() + timeout
        with self._lock:
            self._closed = True
            cut = [] if drain else settle(self.queue.clear())
            self._work.notify_all()
            self._watch.notify()
            while self.queue or self._running:
                left = until - self._clock.now()
                if left <= 0:
                    cut += self._abandon_all()
                    break
                self._clock.wait(self._changed, None if left == math.inf else left)
            self._work.notify_all()
            self._watch.notify()
        for request in cut:
            request.answer(Overloaded("closed before this request was answered."))
        return len(cut)

    def _abandon_all(self) -> list[Request]:
        """Locked. Give up what waits and what runs; returns those that the caller has to answer."""
        lost = settle([*self.queue.clear(), *(request for run in self._running for request in run.requests)])
        for run in self._running:
            run.abandoned = True
        self._hung += len(self._running)
        self._active -= len(self._running)
        self._running.clear()
        return lost

    def _start_worker(self) -> None:
        """Locked."""
        self._active += 1
        threading.Thread(target=self._alive, args=(self._serve,), name="evovit-batch", daemon=True).start()

    def _alive(self, work: Callable[[], None]) -> None:
        """A thread: ``work``, and if that dies, nobody is left waiting."""
        try:
            work()
        except BaseException as error:
            with self._lock:
                self._broken = f"{type(error).__name__}: {error}"  # the text: the error's frames would hold images
                lost = self._abandon_all()
                for condition in (self._work, self._watch, self._changed):
                    condition.notify_all()
                dead = self._dead()
            for request in lost:
                request.answer(dead)
            raise

    def _serve(self) -> None:
        """A worker: runs batches until closed, or until it was replaced because its run hung."""
        while self._serve_one():
            pass

    def _serve_one(self) -> bool:
        """Run a batch; False if there is none to come. A separate function, so that an idle worker holds no images."""
        run = self._next()
        if run is None:
            return False
        while run.unsuited:
            run.unsuited.pop().answer(TransformChanged("the engine was replaced by one with another transform."))
        if not run.requests:
            return True
        outcome: list[Outputs] | BaseException
        try:
            outcome = run.execute(self._max_batch, fixed=self._fixed)
        except BaseException as error:  # whatever it is, it must not take the worker down
            outcome = error
        try:
            return self._finish(run, outcome)
        finally:  # an error's traceback holds this frame and the run: images would stay in these circles
            run.release()
            del outcome

    def _next(self) -> Run | None:
        with self._lock:
            while not self._broken and (self.queue or not self._closed):
                now = self._clock.now()
                delay = self.queue.ready_in(self._max_batch, 0.0 if self._closed else self._delay, now)
                if delay is None or delay > 0:
                    self._clock.wait(self._work, delay)
                    continue
                run = Run(self.engine, now, now + self._run_timeout)
                self.queue.fill(run, self._max_batch)
                self._changed.notify_all()
                if run.requests:
                    self._running.add(run)
                    if run.gives_up < self._wake:
                        self._watch.notify()
                if run.requests or run.unsuited:
                    return run
            self._active -= 1
            return None

    def _finish(self, run: Run, outcome: list[Outputs] | BaseException) -> bool:
        """Answer a run's requests, or queue them again; False if this worker was replaced and has to go."""
        seconds = self._clock.now() - run.started
        failed = isinstance(outcome, BaseException)
        with self._lock:
            if run.abandoned:  # it came back after all; its requests have been answered
                self._hung -= 1
                stays = self._active < self._workers and not self._closed
                self._active += stays
                return stays
            self._running.discard(run)
            if failed and len(run.requests) > 1:
                self._retry(run)
                mine = []
            else:
                mine = settle(run.requests)
            self._changed.notify_all()
            if self._closed:
                self._watch.notify()
        answers = dict.fromkeys(run.requests, outcome) if failed else dict(zip(run.requests, outcome))  # type: ignore[arg-type]
        for request in mine:
            request.answer(answers[request])  # type: ignore[arg-type]
        self._tell(run, seconds, failed=failed)
        return True

    def _retry(self, run: Run) -> None:
        """Locked. One of these requests may be at fault: each runs again, alone."""
        self.queue.put_back(request for request in run.requests if not request.settled)
        self._work.notify_all()

    def _tell(self, run: Run, seconds: float, *, failed: bool) -> None:
        if self._on_batch is not None:
            waited = tuple(request.waited for request in run.requests)
            with contextlib.suppress(Exception):  # an observer is no reason to lose a worker
                self._on_batch(BatchRecord(run.count, waited, seconds, failed))

    def _guard(self) -> None:
        """The watching thread: gives up requests at their deadline, and runs that hang."""
        while not self._broken:
            with self._lock:
                now = self._clock.now()
                answers = late(self.queue, self._running, now)
                hung = [run for run in self._running if run.gives_up <= now]
                for run in hung:
                    answers += self._abandon(run)
                if not answers and not hung:
                    if self._closed and not self.queue and not self._running:
                        return
                    events = (self.queue.next_deadline(), *(run.next_event() for run in self._running))
                    self._wake = min(events)
                    self._clock.wait(self._watch, None if self._wake == math.inf else self._wake - now)
                    self._wake = -math.inf  # awake: nobody needs to notify
                    continue
                self._changed.notify_all()
            while answers:  # and not a loop's variables, which would hold the last one until the next
                Request.answer(*answers.pop())
            while hung:
                self._tell(hung[-1], now - hung.pop().started, failed=True)

    def _abandon(self, run: Run) -> list[tuple[Request, EvoVitError]]:
        """Locked. Give a run up: a new worker takes the place of the one in it, and what shared its batch runs alone."""
        run.abandoned = True
        self._running.discard(run)
        self._hung += 1
        self._active -= 1
        lost: list[Request] = []
        if len(run.requests) > 1:
            self._retry(run)
        else:
            lost = run.requests
        answers: list[tuple[Request, EvoVitError]] = [
            (request, EngineError(f"the engine did not answer within {self._run_timeout:g} s."))
            for request in settle(lost)
        ]
        if self._hung < MAX_HUNG:
            self._start_worker()
        elif not self._active:
            answers += [(request, self._dead()) for request in settle(self.queue.clear())]
        return answers

    def _dead(self) -> EngineError:
        if self._broken:
            return EngineError(f"a thread of the batcher died ({self._broken}); restart the service.")
        return EngineError(f"{self._hung} runs of the engine hang and none comes back; restart the service.")
