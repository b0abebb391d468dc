"""Worker threads: as many as there is work under way, never more than allowed."""

from __future__ import annotations

import threading

from actors.platforms.workers import Workers


def test_there_are_as_many_threads_as_work_under_way_and_no_more_than_allowed() -> None:
    done = threading.Semaphore(0)
    may_end = threading.Event()
    names: set[str] = set()

    def work(_number: int) -> None:
        names.add(threading.current_thread().name)
        may_end.wait(10)
        done.release()

    workers = Workers(3, work)
    before = threading.active_count()
    for number in range(5):
        workers.give(number, number + 1)
    assert threading.active_count() - before <= 3
    may_end.set()
    assert all(done.acquire(timeout=10) for _ in range(5))
    assert len(names) <= 3
    workers.leave()


def test_one_after_the_other_needs_one_thread() -> None:
    done = threading.Semaphore(0)
    names: list[str] = []

    def work(_number: int) -> None:
        names.append(threading.current_thread().name)
        done.release()

    workers = Workers(8, work)
    for number in range(5):
        workers.give(number, 1)
        assert done.acquire(timeout=10)
    assert set(names) == {"worker-1"}
    workers.leave()
