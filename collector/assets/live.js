// Keeps an open page live by server-sent events: hints say what changed, and the page fetches that
// part again. When it is no longer live, or the session has ended, a bar says so.
"use strict";
(() => {
  const $ = (selector, root = document) => root.querySelector(selector);
  const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];
  // A short break is nobody's business; an old page is.
  const OLD_AFTER = 10000;
  // The server says something at least each ten seconds.
  const QUIET_AFTER = 25000;
  const TOASTS = 2;
  const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });

  // ---- Refreshing ----
  // Hints that come within so long are answered by one fetch.
  const HINTS_TOGETHER = 700;
  // A part of the page is fetched at most so often: values move with each heartbeat.
  const REFRESH_EVERY = 5000;
  const waiting = new Set();
  const fetchedAt = new Map();
  // What each part shows, as the server tagged it: it is sent again only if it differs.
  const tags = new Map();
  const fetchPart = async (id) => {
    // Before the fetch: what is hinted while it runs may be missing in its answer.
    waiting.delete(id);
    fetchedAt.set(id, Date.now());
    const el = document.getElementById(id);
    if (!el) return;
    // What someone has selected in it stays until it is sent.
    if ($("input:checked", el)) {
      waiting.add(id);
      setTimeout(() => fetchPart(id), REFRESH_EVERY);
      return;
    }
    const headers = { "x-live": "1", "HX-Target": `${el.localName}#${id}` };
    if (tags.has(id)) headers["If-None-Match"] = tags.get(id);
    await htmx.ajax("GET", location.pathname + location.search, { source: el, target: el, swap: "outerMorph", headers });
  };
  const refresh = (topic) => {
    if (topic === "host") Charts.advance();
    for (const { id } of $$(`[data-live~="${topic}"]`)) {
      if (waiting.has(id)) continue;
      const free = (fetchedAt.get(id) ?? 0) + REFRESH_EVERY;
      waiting.add(id);
      setTimeout(() => fetchPart(id), Math.max(HINTS_TOGETHER, free - Date.now()));
    }
  };
  document.addEventListener("htmx:after:swap", (event) => {
    const { target, response } = event.detail.ctx ?? {};
    if (!target?.id) return;
    const tag = response?.headers?.get("etag");
    if (tag) tags.set(target.id, tag);
    else tags.delete(target.id);
  });

  // ---- The bar ----
  let stream = null;
  let brokenAt = null;
  let heardAt = Date.now();
  let isSignedOut = false;
  let unanswered = null;
  const mark = (state, text) => {
    const el = $("#live-state");
    el.dataset.state = state;
    $("span", el).textContent = text;
    el.title = text;
  };
  const showBar = (text, link) => {
    const bar = $("#stale");
    if (bar.dataset.text === text) return;
    bar.dataset.text = text;
    bar.replaceChildren(text, ...(link ? [" ", link] : []));
    bar.hidden = !text;
  };
  const judge = () => {
    if (isSignedOut) {
      const here = encodeURIComponent(location.pathname + location.search);
      const link = Object.assign(document.createElement("a"), { href: `/login?next=${here}`, textContent: "Sign in" });
      mark("off", "Signed out");
      showBar("You are signed out.", link);
    } else if (brokenAt && Date.now() - brokenAt >= OLD_AFTER) {
      showBar(`Not connected since ${clock.format(brokenAt)}. What you see is old.`);
    } else if (!brokenAt) {
      showBar("");
    }
  };
  const broken = (since = Date.now()) => {
    brokenAt ??= since;
    mark("off", "Reconnecting");
    judge();
  };
  const heard = () => {
    const wasBroken = brokenAt !== null;
    heardAt = Date.now();
    brokenAt = null;
    isSignedOut = false;
    mark("on", "Live");
    judge();
    // What someone searched for meanwhile is asked again.
    unanswered?.requestSubmit?.();
    unanswered = null;
    return wasBroken;
  };
  // An event stream does not say why it was refused.
  const probe = async () => {
    try {
      const answer = await fetch("/events", { method: "HEAD", headers: { "x-live": "1" } });
      isSignedOut = answer.status === 401;
    } catch {
      // Not connected: the bar says that already.
    }
    judge();
  };

  // ---- New tickets ----
  const element = (name, properties) => Object.assign(document.createElement(name), properties);
  const announce = (ticket) => {
    $$("[data-open-tickets]").forEach((el) => { el.textContent = ticket.open || ""; });
    // The queue shows it by itself, and what can wait interrupts nobody.
    if (!ticket.is_new || $("[data-queue]") || ticket.priority > "P2") return;
    const toasts = $("#toasts");
    let more = $(".toast.more", toasts);
    const toast = element("div", { className: "toast" });
    if (more || toasts.childElementCount >= TOASTS) {
      more ??= toast;
      more.classList.add("more");
      more.dataset.count = Number(more.dataset.count || 0) + 1;
      const count = more.dataset.count;
      const link = element("a", { href: "/tickets?state=new", textContent: `${count} more new ticket${count === "1" ? "" : "s"}` });
      more.replaceChildren(link);
      toasts.append(more);
    } else {
      const link = element("a", { href: `/tickets/${ticket.number}`, textContent: ticket.title, dir: "auto" });
      const where = [ticket.host, ticket.client, ticket.site].filter(Boolean).join(" · ");
      const kind = `${ticket.is_again ? "Open again:" : "New ticket"} #${ticket.number} · ${ticket.priority}`;
      const note = element("small", { textContent: where ? `${kind} · ${where}` : kind, dir: "auto" });
      const close = element("button", { className: "btn quiet small", textContent: "Dismiss", type: "button" });
      close.addEventListener("click", () => toast.remove());
      toast.append(link, close, note);
      toasts.append(toast);
    }
    clearTimeout(more?.timer);
    (more ?? toast).timer = setTimeout(() => (more ?? toast).remove(), 20000);
  };

  // ---- The stream ----
  const listen = () => {
    const host = $("[data-host]")?.dataset.host;
    stream = new EventSource(host ? `/events?host=${host}` : "/events");
    heardAt = Date.now();
    stream.onopen = () => {
      if (heard()) ["fleet", "host", "ticket"].forEach(refresh);
    };
    stream.onerror = () => {
      broken();
      // The browser connects again by itself unless it was refused, as when the session has ended.
      if (stream.readyState !== EventSource.CLOSED) return;
      probe();
      setTimeout(() => stream && listen(), 10000);
    };
    stream.addEventListener("alive", heard);
    stream.addEventListener("fleet", () => { heard(); refresh("fleet"); });
    stream.addEventListener("host", () => { heard(); refresh("host"); });
    stream.addEventListener("ticket", (event) => {
      heard();
      refresh("ticket");
      announce(JSON.parse(event.data));
    });
  };
  // Browsers allow few connections to one server; tabs that nobody sees give theirs back.
  const visible = () => {
    if (document.hidden) {
      stream?.close();
      stream = null;
    } else if (!stream) {
      // What happened meanwhile is fetched once the stream is open.
      brokenAt ??= Date.now();
      listen();
    }
  };
  if ($("#live-state")) {
    document.addEventListener("visibilitychange", visible);
    for (const failed of ["htmx:error", "htmx:response:error"]) {
      document.addEventListener(failed, (event) => {
        if (event.detail.ctx?.response?.status === 401) isSignedOut = true;
        broken();
        // Someone waits for it: they should not read the old list as the answer.
        if (event.detail.ctx?.request?.headers?.["x-live"]) return;
        unanswered = event.detail.ctx?.sourceElement?.closest("form");
        showBar("Could not load. What you see is old.");
      });
    }
    setInterval(() => {
      // A collector that hangs keeps the connection open.
      if (stream && Date.now() - heardAt > QUIET_AFTER) broken(heardAt);
      judge();
    }, 1000);
    visible();
    brokenAt = null;
  }
})();
