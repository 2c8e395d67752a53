"""The event loop of the verbs."""

from __future__ import annotations

import asyncio
import signal
import threading

from atlas_grpc.cli import loop


def test_a_signal_that_does_not_interrupt_the_loops_sleep_is_acted_on() -> None:
    """As one does not that comes just before it: here, it comes to another thread."""
    acted = threading.Event()
    waited: list[bool] = []

    async def sleep() -> None:
        wake = asyncio.Event()
        running = asyncio.get_running_loop()

        def another_thread() -> None:
            signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)
            waited.append(acted.wait(10))
            running.call_soon_threadsafe(wake.set)

        before = signal.signal(signal.SIGUSR1, lambda *_: acted.set())
        timer = threading.Timer(0.2, another_thread)
        timer.start()
        try:
            await wake.wait()
        finally:
            timer.join()
            signal.signal(signal.SIGUSR1, before)

    loop.run(sleep())
    assert waited == [True]
