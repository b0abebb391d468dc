// The log as it is written. Lines are text, never markup.
"use strict";

document.addEventListener("DOMContentLoaded", () => {
  const log = document.getElementById("log");
  const level = document.getElementById("log-level");
  const search = document.getElementById("log-search");
  const wanted = document.getElementById("log-follow");
  const most = 1000;
  const rank = { debug: 0, info: 1, warning: 2, error: 3, critical: 3 };

  function matches(element) {
    const least = { all: 0, warning: 2, error: 3 }[level.value];
    const text = search.value.trim().toLowerCase();
    return Number(element.dataset.rank) >= least && (!text || element.textContent.toLowerCase().includes(text));
  }

  function part(name, text) {
    const element = document.createElement("span");
    element.className = name;
    element.textContent = text;
    return element;
  }

  function add(lines) {
    const fresh = document.createDocumentFragment();
    for (const line of lines) {
      const element = document.createElement("div");
      element.className = `line l-${rank[line.level] >= 3 ? "error" : rank[line.level] === 2 ? "warning" : "info"}`;
      element.dataset.rank = rank[line.level] ?? 1;
      const at = new Date(line.at);
      element.append(
        part("at", Number.isNaN(at.valueOf()) ? "" : at.toLocaleTimeString([], { hour12: false })),
        part("level", line.level), part("actor", line.actor), part("text", line.text), part("details", line.details),
      );
      element.hidden = !matches(element);
      fresh.append(element);
    }
    log.append(fresh);
    while (log.childElementCount > most) log.firstElementChild.remove();
    if (wanted.checked) log.scrollTop = log.scrollHeight;
  }

  function filter() {
    for (const element of log.children) element.hidden = !matches(element);
    if (wanted.checked) log.scrollTop = log.scrollHeight;
  }

  level.addEventListener("change", filter);
  search.addEventListener("input", filter);
  wanted.addEventListener("change", filter);
  follow(log.dataset.stream, { begin: (lines) => { log.replaceChildren(); add(lines); }, lines: add });
});
