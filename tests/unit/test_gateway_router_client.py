"""The way to the router, without actors: what is gathered, asked again, and told to those who wait."""

from __future__ import annotations

import asyncio
import os
import select
from collections.abc import Callable
from typing import Any

import pytest

from actors.messages import (
    BatchAnswer,
    CancelMessage,
    Done,
    MessageAccepted,
    MessageRejected,
    RequestRefused,
    SendBatch,
    SendMessage,
)
from config.errors import NoAnswer, Refused
from gateway.bridge import RouterBridge
from gateway.router_client import RouterClient

Answering = Callable[[Any], Any]


def texts(number: int) -> list[SendMessage]:
    return [SendMessage("shop-1", "+60123456789", f"text {each}") for each in range(number)]


def accepted(batch: SendBatch) -> BatchAnswer:
    return BatchAnswer(
        tuple(MessageAccepted(int(each.text.split()[1]), each.request) for each in batch.messages), batch.request
    )


class Router:
    """Stands for the actor and the router behind it, in the loop's own thread."""

    def __init__(self, answer: Answering) -> None:
        self.bridge = RouterBridge()
        self.bridge.router_is("router", "router/1")
        self.asked: list[Any] = []
        self._answer = answer

    def turn(self) -> None:
        """Do what the actor does when it is woken."""
        for _, message in self.bridge.outgoing():
            self.asked.append(message)
            answer = self._answer(message)
            if answer is not None:
                self.bridge.answered(answer)

    def run(self, work: Callable[[RouterClient], Any], seconds: float = 30.0) -> Any:
        """Run ``work`` with a client whose actor is woken by its pipe."""

        async def main() -> Any:
            loop = asyncio.get_running_loop()
            loop.add_reader(self.bridge.descriptor, self.turn)
            try:
                return await work(RouterClient(self.bridge, seconds=seconds))
            finally:
                loop.remove_reader(self.bridge.descriptor)

        return asyncio.run(main())


def test_sends_that_come_while_one_is_on_its_way_go_together() -> None:
    router = Router(accepted)

    async def work(client: RouterClient) -> list[MessageAccepted]:
        return await asyncio.gather(*(client.send(message) for message in texts(100)))

    answers = router.run(work)
    assert [answer.id for answer in answers] == list(range(100))
    assert sum(len(batch.messages) for batch in router.asked) == 100
    assert len(router.asked) == 1  # all of them were there before the first could leave


def test_a_gathered_batch_is_no_larger_than_the_router_likes() -> None:
    router = Router(accepted)

    async def work(client: RouterClient) -> None:
        await asyncio.gather(*(client.send(message) for message in texts(600)))

    router.run(work)
    assert [len(batch.messages) for batch in router.asked] == [250, 250, 100]


def test_a_message_without_a_key_gets_one_so_that_it_can_be_asked_for_again() -> None:
    answers = iter([True, False])

    def answer(batch: SendBatch) -> BatchAnswer:
        if next(answers):  # PostgreSQL is away
            told = (MessageRejected("storage_unavailable", "away", batch.messages[0].request),)
            return BatchAnswer(told, batch.request)
        return accepted(batch)

    router = Router(answer)
    assert router.run(lambda client: client.send(texts(1)[0])).id == 0
    keys = [batch.messages[0].idempotency_key for batch in router.asked]
    assert keys[0] is not None
    assert keys == [keys[0]] * 2


def test_one_message_that_breaks_the_router_is_not_told_to_the_others() -> None:
    def answer(batch: SendBatch) -> BatchAnswer:
        if any(each.text == "text 1" for each in batch.messages):
            told = tuple(MessageRejected("internal", "It broke.", each.request) for each in batch.messages)
            return BatchAnswer(told, batch.request)
        return accepted(batch)

    router = Router(answer)

    async def work(client: RouterClient) -> list[Any]:
        return await asyncio.gather(*(client.send(message) for message in texts(3)), return_exceptions=True)

    first, broken, third = router.run(work)
    assert (first.id, third.id) == (0, 2)
    assert isinstance(broken, Refused)
    assert broken.code == "internal"


def test_a_rejection_is_told_to_whom_it_concerns() -> None:
    def answer(batch: SendBatch) -> BatchAnswer:
        told = [
            MessageRejected("bad_number", "No number.", each.request)
            if each.to == "nobody"
            else MessageAccepted(7, each.request)
            for each in batch.messages
        ]
        return BatchAnswer(tuple(told), batch.request)

    router = Router(answer)

    async def work(client: RouterClient) -> list[Any]:
        messages = [SendMessage("shop-1", to, "text 1") for to in ("+60123456789", "nobody")]
        return await asyncio.gather(*(client.send(message) for message in messages), return_exceptions=True)

    good, bad = router.run(work)
    assert good.id == 7
    assert (type(bad), bad.code) == (Refused, "bad_number")


def test_a_refusal_is_raised_and_a_silent_router_is_told() -> None:
    refusing = Router(lambda message: RequestRefused("not_queued", "It is not queued.", message.request, "Look."))
    with pytest.raises(Refused, match="not queued") as refused:
        refusing.run(lambda client: client.request(CancelMessage(1)))
    assert (refused.value.code, refused.value.next_step) == ("not_queued", "Look.")
    silent = Router(lambda _message: None)
    with pytest.raises(NoAnswer):
        silent.run(lambda client: client.request(CancelMessage(1)), seconds=0.3)


def test_another_router_is_asked_at_once_what_the_former_left_unanswered() -> None:
    router = Router(lambda _message: None)

    async def work(client: RouterClient) -> str:
        asking = asyncio.ensure_future(client.request(CancelMessage(1)))
        while not router.asked:
            await asyncio.sleep(0)
        router._answer = lambda message: Done(message.request, "cancelled")
        router.bridge.router_is("another", "router/2")
        router.turn()
        return await asking

    assert router.run(work) == "cancelled"
    assert [message.request for message in router.asked] == [router.asked[0].request] * 2


def test_requests_wait_until_there_is_a_router_and_are_dropped_when_nobody_waits_any_more() -> None:
    bridge = RouterBridge()

    async def ask() -> None:
        assert await bridge.exchange(CancelMessage(1), 0.01) is None

    asyncio.run(ask())
    assert bridge.outgoing() == []
    bridge.router_is("router", "router/1")
    assert bridge.outgoing() == []


def test_an_answer_that_nobody_waits_for_is_nobodys() -> None:
    RouterBridge().answered(Done("0" * 32))


def test_the_pipe_can_be_read_as_long_as_there_is_something_to_send() -> None:
    bridge = RouterBridge()

    async def ask_many() -> None:
        asked = [asyncio.ensure_future(bridge.exchange(CancelMessage(each), 5)) for each in range(3)]
        await asyncio.sleep(0)
        assert select.select([bridge.descriptor], [], [], 0)[0] == [bridge.descriptor]
        bridge.router_is("router", "router/1")
        assert [message.message_id for _, message in bridge.outgoing()] == [0, 1, 2]
        assert select.select([bridge.descriptor], [], [], 0)[0] == []
        for each in asked:
            each.cancel()

    asyncio.run(ask_many())
    os.close(bridge.descriptor)
