// What every page does: show moments as how long ago they are, say when the gateway is away, and rest while nobody looks.
"use strict";

const units = [[86400, "d"], [3600, "h"], [60, "min"]];

function span(seconds) {
  for (const [size, unit] of units) if (seconds >= size) return `${Math.round(seconds / size)} ${unit}`;
  return `${Math.max(0, Math.round(seconds))} s`;
}

function tellMoments(root) {
  const now = Date.now();
  for (const element of root.querySelectorAll("time[datetime]")) {
    const moment = new Date(element.dateTime);
    const seconds = (now - moment) / 1000;
    const words = "lasts" in element.dataset ? `for ${span(seconds)}` : seconds >= -1 ? `${span(seconds)} ago` : `in ${span(-seconds)}`;
    if (element.textContent !== words) element.textContent = words;
    if (!element.title) element.title = moment.toLocaleString();
  }
}

// On a narrow screen a chart is wider than its card: what is newest is seen first.
function showNewest(root) {
  for (const chart of root.querySelectorAll(".chart")) chart.parentElement.scrollLeft = chart.parentElement.scrollWidth;
}

function away(isAway) {
  const banner = document.getElementById("away");
  if (banner && banner.hidden === isAway) banner.hidden = !isAway;
}

// A stream of events that is open only while somebody looks: browsers allow six connections to one host.
function follow(address, listeners) {
  let source = null;
  const open = () => {
    if (source || document.hidden) return;
    source = new EventSource(address);
    source.addEventListener("open", () => away(false));
    source.addEventListener("error", () => {
      away(true);
      // Closed for good: the session ended, or the gateway is starting. Ask again later.
      if (source && source.readyState === EventSource.CLOSED) { source = null; setTimeout(open, 3000); }
    });
    for (const [name, listener] of Object.entries(listeners))
      source.addEventListener(name, (event) => listener(JSON.parse(event.data)));
  };
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) { if (source) source.close(); source = null; } else open();
  });
  open();
}

document.addEventListener("DOMContentLoaded", () => {
  tellMoments(document);
  showNewest(document);
  setInterval(() => { if (!document.hidden) tellMoments(document); }, 5000);
  document.body.addEventListener("htmx:load", (event) => {
    tellMoments(event.detail.elt);
    showNewest(event.detail.elt);
  });
  document.body.addEventListener("htmx:beforeRequest", (event) => {
    const asked = event.detail.elt.getAttribute("hx-trigger") || "";
    if (document.hidden && asked.startsWith("every")) event.preventDefault();
  });
  document.body.addEventListener("htmx:sendError", () => away(true));
  document.body.addEventListener("htmx:responseError", (event) => {
    const status = event.detail.xhr.status;
    away(status >= 500);
    if (status === 404) location.reload(); // what the page is about was removed: say so
  });
  document.body.addEventListener("htmx:afterRequest", (event) => { if (event.detail.successful) away(false); });
  document.body.addEventListener("change", (event) => {
    const form = event.target.closest("form[data-submit-on-change]");
    if (form) form.submit();
  });
  // A form is sent once, however often the button is pressed.
  document.body.addEventListener("submit", (event) => {
    if (event.target.method !== "post") return;
    if (event.target.dataset.sent) { event.preventDefault(); return; }
    event.target.dataset.sent = "yes";
    for (const button of event.target.querySelectorAll("button")) button.setAttribute("aria-busy", "true");
  });
  window.addEventListener("pageshow", () => {
    for (const form of document.querySelectorAll("form[data-sent]")) {
      delete form.dataset.sent;
      for (const button of form.querySelectorAll("button")) button.removeAttribute("aria-busy");
    }
  });
});
