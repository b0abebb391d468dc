"""webhook …: where others are told what happens. The other direction, a provider tells us, is ``device webhook``."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from actors.fleet import Fleet
from commands.output import AsJson, current_home, err, out, print_json, print_table, reported
from config.errors import NoAnswer, Refused, UsageWrong
from storage.endpoint_deliveries import DAYS_KEPT
from storage.endpoints import Endpoint

app = typer.Typer(no_args_is_help=True, help="Endpoints that are told what happens, by signed webhooks.")

EndpointId = Annotated[int, typer.Argument(metavar="ID", help="The endpoint's id.")]
#: How long a test waits for its delivery, in seconds.
_TEST_SECONDS = 30.0


@app.command("add")
@reported
def add(
    url: Annotated[str, typer.Argument(metavar="URL", help="Where deliveries are posted: https.")],
    events: Annotated[
        str, typer.Option(help="Kinds (message.sent), families (message.*), or *; with commas between.")
    ] = "*",
    device: Annotated[str | None, typer.Option(help="Only what happens to this device.")] = None,
    description: Annotated[str, typer.Option(help="What it is for, in your words.")] = "",
    as_json: AsJson = False,
) -> None:
    """Add an endpoint and show its secret, which its receiver verifies signatures with."""
    with Fleet(current_home().path) as fleet:
        if device is not None:
            fleet.device(device)
        kinds = [kind.strip() for kind in events.split(",") if kind.strip()]
        endpoint_id, secret = fleet.endpoints.add(url, kinds, device=device, description=description)
    if as_json:
        print_json({"id": endpoint_id, "secret": secret})
        return
    out.print(f"Added endpoint {endpoint_id}. Its secret:", markup=False)
    out.print(secret, markup=False, soft_wrap=True)
    err.print(f"Try it: run.py webhook test {endpoint_id}", markup=False)


@app.command("list")
@reported
def list_endpoints(as_json: AsJson = False) -> None:
    """List the endpoints, with how much each is still to be told and how much it never was."""
    with Fleet(current_home().path) as fleet:
        found, counts = fleet.endpoints.all(), fleet.endpoints.counts()
    rows = [{**each.as_dict(), **_counted(counts.get(each.id))} for each in found]
    if as_json:
        print_json(rows)
        return
    print_table(
        "Webhook endpoints",
        ("id", "url", "events", "device", "on", "pending", "dead", "description"),
        [
            (
                row["id"],
                row["url"],
                ", ".join(row["events"]),
                row["device"] or "all",
                "yes" if row["enabled"] else f"no: {row['disabled_reason']}",
                row["pending"],
                row["dead"],
                row["description"],
            )
            for row in rows
        ],
        "No endpoints yet: run.py webhook add URL",
    )


def _counted(row: dict[str, Any] | None) -> dict[str, Any]:
    if row is None:
        return {"pending": 0, "oldest": None, "dead": 0}
    return {name: row[name] for name in ("pending", "oldest", "dead")}


@app.command("show")
@reported
def show(
    endpoint_id: EndpointId,
    secret: Annotated[bool, typer.Option("--secret", help="Show its secret, too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show an endpoint."""
    with Fleet(current_home().path) as fleet:
        endpoint = fleet.endpoints.get(endpoint_id)
        told = {**endpoint.as_dict(), **_counted(fleet.endpoints.counts().get(endpoint_id))}
        if secret:
            told["secret"] = fleet.endpoints.secret(endpoint)
    if as_json:
        print_json(told)
        return
    told["events"] = ", ".join(told["events"])
    told["device"] = told["device"] or "all"
    print_table(f"Endpoint {endpoint_id}", ("what", "value"), list(told.items()), "")


@app.command("test")
@reported
def try_endpoint(endpoint_id: EndpointId, as_json: AsJson = False) -> None:
    """Tell an endpoint something that happened to nobody, and show what it answers."""
    with Fleet(current_home().path) as fleet:
        fleet.endpoints.get(endpoint_id)
        delivery_id = fleet.endpoints.test(endpoint_id)
        deadline = time.monotonic() + _TEST_SECONDS
        row = fleet.endpoints.delivery(delivery_id)
        while row["tried_at"] is None and time.monotonic() < deadline:
            time.sleep(0.1)
            row = fleet.endpoints.delivery(delivery_id)
    if row["tried_at"] is None:
        raise NoAnswer(
            f"The test was not delivered within {_TEST_SECONDS:.0f} seconds; it stays pending.",
            f"See run.py webhook deliveries {endpoint_id}, and whether the gateway runs: run.py status.",
        )
    if row["state"] != "delivered":
        raise Refused(
            f"The test failed: {row['problem']}",
            f"It is tried again. See run.py webhook deliveries {endpoint_id}.",
            code="test_failed",
        )
    if as_json:
        print_json({"delivery": delivery_id, "status": row["status"], "answer": row["answer"]})
    else:
        out.print(f"Endpoint {endpoint_id} answered {row['status']}. {row['answer']}".rstrip(), markup=False)


@app.command("enable")
@reported
def enable(endpoint_id: EndpointId) -> None:
    """Switch an endpoint on: what waited for it is told now."""
    _switch(endpoint_id, on=True)


@app.command("disable")
@reported
def disable(endpoint_id: EndpointId) -> None:
    """Switch an endpoint off: it is told nothing of what happens from now on; what is pending waits."""
    _switch(endpoint_id, on=False)


def _switch(endpoint_id: int, *, on: bool) -> None:
    with Fleet(current_home().path) as fleet:
        fleet.endpoints.get(endpoint_id)
        fleet.endpoints.change(endpoint_id, enabled=on)
    out.print(f"Switched endpoint {endpoint_id} {'on' if on else 'off'}.")


@app.command("remove")
@reported
def remove(endpoint_id: EndpointId) -> None:
    """Remove an endpoint; what it was still to be told is told to nobody."""
    with Fleet(current_home().path) as fleet:
        fleet.endpoints.get(endpoint_id)
        fleet.endpoints.remove(endpoint_id)
    out.print(f"Removed endpoint {endpoint_id}.")


@app.command("deliveries")
@reported
def deliveries(
    endpoint_id: EndpointId,
    dead: Annotated[bool, typer.Option("--dead", help="Only dead letters.")] = False,
    delivery: Annotated[int | None, typer.Option(help="Show this one, with what is told.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Show an endpoint's last deliveries with their answers, newest first."""
    if dead and delivery is not None:
        raise UsageWrong("Say either --dead or --delivery.", "One delivery is shown whatever became of it.")
    with Fleet(current_home().path) as fleet:
        endpoint: Endpoint = fleet.endpoints.get(endpoint_id)
        if delivery is not None:
            print_json(fleet.endpoints.delivery(delivery))
            return
        rows = fleet.endpoints.deliveries(endpoint.id, dead=dead, limit=limit)
    if as_json:
        print_json(rows)
        return
    print_table(
        f"{'Dead letters' if dead else 'Deliveries'} of endpoint {endpoint_id}",
        ("id", "type", "state", "tries", "status", "answer or problem", "tried"),
        [
            (
                row["id"],
                row["type"],
                row["state"],
                row["attempts"],
                row["status"],
                (row["problem"] or row["answer"])[:80],
                row["tried_at"],
            )
            for row in rows
        ],
        f"None. They are kept {DAYS_KEPT['delivered']} days ({DAYS_KEPT['dead']} when they are dead letters).",
    )


@app.command("replay")
@reported
def replay(
    endpoint_id: EndpointId,
    delivery: Annotated[int | None, typer.Option(help="Only this one, whatever became of it.")] = None,
    as_json: AsJson = False,
) -> None:
    """Tell an endpoint its dead letters once more, oldest first."""
    with Fleet(current_home().path) as fleet:
        fleet.endpoints.get(endpoint_id)
        replayed = fleet.endpoints.replay(endpoint_id, delivery)
    if as_json:
        print_json({"replayed": replayed})
    else:
        out.print(f"{replayed} deliveries are made once more.")
