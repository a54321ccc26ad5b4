// Makes pages live: relative times, theme, server-sent events. Every page works without it; it only
// fetches again what the server renders.
"use strict";
(() => {
  const $ = (selector, root = document) => root.querySelector(selector);
  const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];
  const root = document.documentElement;
  const { now, local } = Charts;

  // ---- Times and the theme ----
  const ago = (ms) => {
    const s = Math.max(0, Math.round((now() - ms) / 1000));
    if (s < 5) return "just now";
    if (s < 60) return `${s} s ago`;
    if (s < 3600) return `${Math.floor(s / 60)} min ago`;
    if (s < 86400) return `${Math.floor(s / 3600)} h ago`;
    return `${Math.floor(s / 86400)} d ago`;
  };
  const tell = (scope = document) => {
    for (const el of $$("time[datetime]", scope)) {
      const ms = Date.parse(el.dateTime);
      if (el.dataset.show === "ago") {
        el.textContent = ago(ms);
        el.title = local.format(ms);
      } else {
        el.textContent = local.format(ms);
        el.title = ago(ms);
      }
    }
  };
  const isDark = () => root.dataset.theme === "dark" ||
    (root.dataset.theme !== "light" && matchMedia("(prefers-color-scheme: dark)").matches);
  document.addEventListener("click", (event) => {
    if (event.target.closest("[data-toggle-theme]")) {
      root.dataset.theme = isDark() ? "light" : "dark";
      document.cookie = `watchkeep-theme=${root.dataset.theme}; Path=/; Max-Age=31536000; SameSite=Lax; Secure`;
      Charts.recolour();
    }
    event.target.closest("[data-dismiss]")?.parentElement.remove();
  });

  // ---- Live ----
  const waiting = new Map();
  const refresh = (topic) => {
    if (topic === "host") Charts.advance();
    if (waiting.has(topic)) return;
    waiting.set(topic, setTimeout(async () => {
      // Before the fetch: what is hinted while it runs may be missing in its answer.
      waiting.delete(topic);
      for (const el of $$(`[data-live~="${topic}"]`)) {
        const headers = { "x-live": "1", "HX-Target": `${el.localName}#${el.id}` };
        await htmx.ajax("GET", location.pathname + location.search, { source: el, target: el, swap: "outerMorph", headers });
      }
    }, 700));
  };
  const announce = (ticket) => {
    $$("[data-open-tickets]").forEach((el) => { el.textContent = ticket.open || ""; });
    if (!ticket.is_new) return;
    const toast = document.createElement("div");
    toast.className = "toast";
    const link = Object.assign(document.createElement("a"), { href: `/tickets/${ticket.number}`, textContent: ticket.title });
    const note = Object.assign(document.createElement("small"), { textContent: `${ticket.is_again ? "Open again:" : "New ticket"} #${ticket.number} · ${ticket.priority}` });
    const close = Object.assign(document.createElement("button"), { className: "btn quiet small", textContent: "Dismiss" });
    close.dataset.dismiss = "";
    toast.append(link, close, note);
    $("#toasts").append(toast);
    setTimeout(() => toast.remove(), 20000);
  };
  let stream = null;
  let lost = false;
  const connected = (state, text) => {
    const el = $("#live-state");
    if (!el) return;
    el.dataset.state = state;
    $("span", el).textContent = text;
    el.title = text;
  };
  const listen = () => {
    const host = $("[data-host]")?.dataset.host;
    stream = new EventSource(host ? `/events?host=${host}` : "/events");
    stream.onopen = () => {
      connected("on", "Live");
      if (lost) ["fleet", "host", "ticket"].forEach(refresh);
      lost = false;
    };
    stream.onerror = () => {
      connected("off", "Reconnecting");
      lost = true;
      // The browser tries again by itself unless it was refused, as when the session has ended.
      if (stream.readyState === EventSource.CLOSED) setTimeout(() => stream && listen(), 10000);
    };
    stream.addEventListener("fleet", () => refresh("fleet"));
    stream.addEventListener("host", () => refresh("host"));
    stream.addEventListener("ticket", (event) => {
      refresh("ticket");
      announce(JSON.parse(event.data));
    });
  };
  // Browsers allow few connections to one server; tabs that nobody sees give theirs back.
  const visible = () => {
    if (document.hidden) {
      stream?.close();
      stream = null;
      lost = true;
    } else if (!stream && $("#live-state")) {
      listen();
    }
  };

  // ---- Start ----
  tell();
  setInterval(tell, 5000);
  document.addEventListener("htmx:after:swap", () => tell());
  document.addEventListener("visibilitychange", visible);
  visible();
})();
