// What a page does by itself: times in the reader's zone, the theme, menus, copying, drafts of what is
// typed, and the way back to a filtered list. Every page works without it. Loaded behind chart.js, which has the server's clock.
"use strict";
(() => {
  const $ = (selector, root = document) => root.querySelector(selector);
  const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];
  const root = document.documentElement;
  const { now, local, clock, zone } = Charts;

  // ---- Times ----
  const ago = (ms) => {
    const s = Math.max(0, Math.round((now() - ms) / 1000));
    if (s < 5) return "just now";
    if (s < 60) return `${s} s ago`;
    if (s < 3600) return `${Math.floor(s / 60)} min ago`;
    if (s < 86400) return `${Math.floor(s / 3600)} h ago`;
    return `${Math.floor(s / 86400)} d ago`;
  };
  const showTimes = () => {
    for (const el of $$("[data-clock]")) el.textContent = clock.format(Number(el.dataset.clock));
    for (const el of $$("time[datetime]")) {
      const ms = Date.parse(el.dateTime);
      // A time in a contract's zone stays as the server wrote it.
      if (el.dataset.show === "zoned") el.title = `${local.format(ms)} ${zone}, ${ago(ms)}`;
      else if (el.dataset.show === "ago") {
        el.textContent = ago(ms);
        el.title = `${local.format(ms)} ${zone}`;
      } else {
        el.textContent = local.format(ms);
        el.title = `${zone}, ${ago(ms)}`;
      }
    }
  };

  // ---- Theme, menus, copying ----
  const isDark = () => root.dataset.theme === "dark" ||
    (root.dataset.theme !== "light" && matchMedia("(prefers-color-scheme: dark)").matches);
  const copy = async (button) => {
    const text = document.getElementById(button.dataset.copy).textContent;
    const label = button.lastChild;
    try {
      await navigator.clipboard.writeText(text.trim());
      label.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(document.getElementById(button.dataset.copy));
      label.textContent = "Press Ctrl+C";
    }
  };
  document.addEventListener("click", (event) => {
    if (event.target.closest("[data-toggle-theme]")) {
      root.dataset.theme = isDark() ? "light" : "dark";
      document.cookie = `watchkeep-theme=${root.dataset.theme}; Path=/; Max-Age=31536000; SameSite=Lax; Secure`;
      Charts.recolour();
    }
    const button = event.target.closest("[data-copy]");
    if (button) copy(button);
    for (const menu of $$("details.menu[open]")) {
      if (!menu.contains(event.target)) menu.open = false;
    }
  });
  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest?.("input, textarea, select, [contenteditable]");
    if (event.key === "Escape") {
      const menu = event.target.closest?.("details.menu[open]") ?? $("details.menu[open]");
      if (menu) {
        menu.open = false;
        $("summary", menu).focus();
      }
    } else if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
      const search = $("input[type=search]");
      if (search) {
        event.preventDefault();
        search.focus();
      }
    }
  });

  // ---- Drafts: what is typed outlives a reload, a lost connection and the end of the session ----
  const keep = (key, text) => {
    try {
      if (text) sessionStorage.setItem(key, text);
      else sessionStorage.removeItem(key);
    } catch {
      // Storage is off in this browser; the server's own way to give the text back remains.
    }
  };
  const kept = (key) => {
    try {
      return sessionStorage.getItem(key);
    } catch {
      return null;
    }
  };
  for (const el of $$("textarea[id]")) {
    const key = `draft ${location.pathname} ${el.id}`;
    const text = kept(key);
    const isSent = text && $$(".note").some((note) => note.textContent.trim() === text.trim());
    if (isSent) keep(key, "");
    else if (text && !el.value) el.value = text;
    el.addEventListener("input", () => keep(key, el.value));
  }

  // ---- Lists: the link back to a list keeps the filters that it had in this tab ----
  const list = $("form[role=search]")?.getAttribute("action");
  if (list) addEventListener("pagehide", () => keep(`list ${list}`, location.search));
  // A new tab knows only the page that it was opened from.
  const referrer = document.referrer && new URL(document.referrer);
  const showWaysBack = () => {
    for (const el of $$("a.crumb")) {
      const path = new URL(el.href).pathname;
      if (referrer?.origin === location.origin && referrer.pathname === path) keep(`list ${path}`, referrer.search);
      el.href = path + (kept(`list ${path}`) ?? "");
    }
  };

  // ---- Forms: parameters that are empty do not get into an address ----
  document.addEventListener("htmx:config:request", (event) => {
    const { request } = event.detail.ctx;
    if (request.method !== "GET" || !request.body?.delete) return;
    for (const name of new Set([...request.body.keys()])) {
      if (!request.body.get(name)) request.body.delete(name);
    }
  });

  showTimes();
  showWaysBack();
  $$("[data-zone-name]").forEach((el) => { el.value = zone; });
  $$("[data-zone]").forEach((el) => { el.textContent = `Times are in ${zone}.`; });
  setInterval(showTimes, 5000);
  document.addEventListener("htmx:after:swap", () => {
    showTimes();
    showWaysBack();
  });
})();
