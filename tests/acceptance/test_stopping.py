"""An orderly stop: what is under way finishes, nothing new begins, and nothing is left in doubt."""

from __future__ import annotations

from actors.messages import SendMessage
from tests.support.daemon import Daemon, eventually

RECIPIENT = "60199000777"


def test_a_stop_amid_a_long_backlog_leaves_nothing_in_doubt_and_nothing_is_sent_twice(daemon: Daemon) -> None:
    with daemon.fleet() as fleet:
        daemon.add_paired("busy", "60120000777")
        batch = [SendMessage("busy", RECIPIENT, f"order {number}") for number in range(400)]
        fleet.send_batch(batch)
        eventually(lambda: fleet.message_counts().get("delivered", 0) > 10, 60, "the lane to move")
    daemon.stop()
    daemon.start()
    with daemon.fleet() as fleet:
        assert fleet.message_counts().get("queued", 0) > 0, "the stop came amid the backlog"
        assert fleet.messages(state="in_doubt") == []
        eventually(lambda: fleet.message_counts().get("delivered", 0) == len(batch), 180, "the rest to arrive")
    texts = daemon.texts(RECIPIENT)
    assert sorted(texts) == sorted(message.text for message in batch)
