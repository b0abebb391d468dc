// The map: thousands of small links of which only those that changed are touched, and a legend that counts them.
"use strict";

document.addEventListener("DOMContentLoaded", () => {
  const holder = document.getElementById("map-holder");
  const filter = document.getElementById("filter");
  const summary = document.getElementById("summary");
  if (!holder) return;

  const looks = new Map();
  for (const chip of filter.querySelectorAll("[data-state]")) {
    const mark = chip.querySelector(".mark");
    looks.set(chip.dataset.state, {
      chip,
      title: chip.textContent.trim().replace(/\s*\d+$/, ""),
      group: [...mark.classList].find((name) => name.startsWith("g-")),
      number: chip.querySelector("b"),
    });
  }
  const words = { "g-well": "can send", "g-moving": "on their way", "g-needs-you": "need you", "g-resting": "paused" };

  let cells = new Map();
  let states = new Map();
  let current = null;

  const map = () => document.getElementById("map");
  const stateOf = (cell) => [...cell.classList].find((name) => name.startsWith("s-")).slice(2);
  const nameOf = (cell) => cell.title.slice(0, cell.title.lastIndexOf(": "));

  function read() {
    cells = new Map();
    states = new Map();
    for (const cell of map().querySelectorAll(".cell")) {
      const id = Number(cell.dataset.id);
      cells.set(id, cell);
      states.set(id, stateOf(cell));
      cell.tabIndex = -1;
    }
    current = map().querySelector(".cell");
    if (current) current.tabIndex = 0;
    dim();
  }

  function show(id, state) {
    const cell = cells.get(id);
    if (!cell || states.get(id) === state) return;
    const look = looks.get(state) || { title: state, group: "g-moving" };
    const name = nameOf(cell);
    states.set(id, state);
    cell.className = `cell ${look.group} s-${state}${cell.classList.contains("dim") ? " dim" : ""}`;
    cell.title = `${name}: ${look.title}`;
    const label = cell.querySelector("small");
    if (label) label.textContent = look.title;
    const listed = document.querySelector(`[data-device="${id}"]`);
    const badge = listed && listed.querySelector(".badge");
    if (badge) {
      badge.className = `badge ${look.group} s-${state}`;
      badge.textContent = look.title;
      // Its reason and its time have changed with it.
      htmx.trigger("#list-part", "fleet-change");
    }
  }

  let told = 0;
  function count() {
    const sums = new Map();
    for (const state of states.values()) sums.set(state, (sums.get(state) || 0) + 1);
    const groups = new Map();
    for (const [state, look] of looks) {
      const number = sums.get(state) || 0;
      if (look.number.textContent !== String(number)) look.number.textContent = number;
      look.chip.hidden = !number && !look.chip.querySelector("input").checked;
      groups.set(look.group, (groups.get(look.group) || 0) + number);
    }
    const parts = Object.keys(words).filter((group) => groups.get(group)).map((group) => `${groups.get(group)} ${words[group]}`);
    const sentence = `${states.size} device${states.size === 1 ? "" : "s"}${parts.length ? ": " : ""}${parts.join(", ")}`;
    if (summary.textContent !== sentence) {
      // Read aloud at most every five seconds, though it is shown at once.
      summary.setAttribute("aria-live", Date.now() - told > 5000 ? "polite" : "off");
      if (Date.now() - told > 5000) told = Date.now();
      summary.textContent = sentence;
    }
  }

  function dim() {
    const search = filter.elements.q.value.trim().toLowerCase();
    const platform = filter.elements.platform.value;
    const chosen = new Set([...filter.querySelectorAll("[name=state]:checked")].map((box) => box.value));
    for (const [id, cell] of cells) {
      const out = (search && !cell.title.toLowerCase().includes(search) && !/\d{4}/.test(search))
        || (platform && cell.dataset.p !== platform) || (chosen.size > 0 && !chosen.has(states.get(id)));
      if (cell.classList.contains("dim") !== Boolean(out)) cell.classList.toggle("dim", Boolean(out));
    }
  }

  let asking = false;
  async function askAgain() {
    if (asking) return;
    asking = true;
    try {
      const answer = await fetch("/fleet/map", { headers: { "HX-Request": "true" } });
      if (answer.ok) { holder.innerHTML = await answer.text(); read(); count(); }
    } finally { asking = false; }
  }

  function apply(event) {
    away(false);
    if (event.all) {
      const ids = new Set();
      for (let place = 0; place < event.all.length; place += 2) {
        ids.add(event.all[place]);
        show(event.all[place], event.all[place + 1]);
      }
      if (ids.size !== cells.size || [...ids].some((id) => !cells.has(id))) askAgain();
    } else {
      for (let place = 0; place < event.changed.length; place += 2) show(event.changed[place], event.changed[place + 1]);
      if (event.others) askAgain();
    }
    requestAnimationFrame(() => { count(); dim(); });
  }

  function move(event) {
    const cell = event.target.closest(".cell");
    if (!cell) return;
    const all = [...map().querySelectorAll(".cell")];
    const place = all.indexOf(cell);
    const across = all.filter((each) => each.offsetTop === all[0].offsetTop).length;
    const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: across, ArrowUp: -across, Home: -place, End: all.length - 1 - place };
    if (!(event.key in steps)) return;
    const next = all[place + steps[event.key]];
    event.preventDefault();
    if (!next) return;
    if (current) current.tabIndex = -1;
    current = next;
    next.tabIndex = 0;
    next.focus();
  }

  read();
  filter.addEventListener("input", dim);
  holder.addEventListener("keydown", move);
  follow(map().dataset.stream, { fleet: apply, away: () => away(true) });
});
