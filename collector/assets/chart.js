// Charts that zoom: finds every figure with `data-chart`, fetches its columns and draws them with
// uPlot. All charts of a page share one range of time. Loaded before app.js, which calls
// `Charts.advance` when new points have come.
"use strict";
const Charts = (() => {
  const $ = (selector, root = document) => root.querySelector(selector);
  const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];
  const root = document.documentElement;
  // The server's clock: a wrong one here must not bend a chart's right edge.
  const skew = Number(root.dataset.now || Date.now()) - Date.now();
  const now = () => Date.now() + skew;
  const parts = { hour: "2-digit", minute: "2-digit", hourCycle: "h23" };
  // The pages are English, and so are their dates, whatever the browser's language.
  const local = new Intl.DateTimeFormat("en-GB", { year: "numeric", month: "short", day: "numeric", second: "2-digit", ...parts });
  const clock = new Intl.DateTimeFormat("en-GB", parts);
  const day = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });
  const zone = local.resolvedOptions().timeZone;
  const charts = [];
  // Refreshed with the page's live part, so it is read whenever a chart is drawn.
  const marks = () => JSON.parse($("[data-chart-marks]")?.dataset.chartMarks || "{}");
  let span = Number($("[data-chart-span]")?.dataset.chartSpan || 3600000);
  // A zoomed range stands in the address, for a reload and for colleagues.
  const query = new URLSearchParams(location.search);
  let zoom = Number(query.get("to")) > Number(query.get("from")) && query.get("from") ? [Number(query.get("from")), Number(query.get("to"))] : null;
  const zoomTo = (range) => {
    zoom = range;
    const url = new URL(location);
    for (const [i, name] of ["from", "to"].entries()) {
      if (range) url.searchParams.set(name, Math.round(range[i]));
      else url.searchParams.delete(name);
    }
    history.replaceState(history.state, "", url);
    reload();
  };
  const colour = (name) => getComputedStyle(root).getPropertyValue(name).trim();
  const scaled = (value, base, units) => {
    let i = 0;
    for (; Math.abs(value) >= base && i < units.length - 1; i++) value /= base;
    return `${value >= 100 || value === Math.round(value) ? Math.round(value) : value.toFixed(1)} ${units[i]}`;
  };
  const show = (value, unit) => {
    if (value == null) return "–";
    if (unit === "pct") return `${value.toFixed(1)} %`;
    if (unit === "bytes") return scaled(value, 1024, ["B", "KiB", "MiB", "GiB", "TiB"]);
    if (unit === "bytes_per_s") return scaled(value, 1024, ["B/s", "KiB/s", "MiB/s", "GiB/s"]);
    if (unit === "ms") return `${Math.round(value)} ms`;
    return value >= 1000 ? scaled(value, 1000, ["", "k", "M", "G"]) : String(Math.round(value * 100) / 100);
  };
  class Chart {
    constructor(figure) {
      this.figure = figure;
      this.place = $(".plot", figure);
      this.options = JSON.parse(figure.dataset.chart);
      new ResizeObserver(() => this.plot?.setSize(this.size())).observe(this.place);
      $("details", figure)?.addEventListener("toggle", () => this.table());
      if (!this.options.fixed) this.touch();
    }
    /** Dragging with a finger; uPlot itself knows the mouse only. */
    touch() {
      let start = null;
      const at = (event) => event.clientX - this.plot.over.getBoundingClientRect().left;
      const select = (end) => {
        const [left, right] = [Math.max(0, Math.min(start, end)), Math.min(this.plot.over.clientWidth, Math.max(start, end))];
        this.plot.setSelect({ left, width: right - left, top: 0, height: this.plot.over.clientHeight }, false);
      };
      this.place.addEventListener("pointerdown", (event) => {
        if (event.pointerType === "touch" && event.target.closest(".u-over")) start = at(event);
      });
      this.place.addEventListener("pointermove", (event) => { if (start != null) select(at(event)); });
      this.place.addEventListener("pointerup", () => {
        if (start != null) this.zoom(16);
        start = null;
      });
      this.place.addEventListener("pointercancel", () => {
        start = null;
        this.plot.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
      });
    }
    /** Zooms to what is selected, if it is at least so many pixels wide. */
    zoom(least) {
      const { left, width } = this.plot.select;
      const at = (px) => this.plot.posToVal(px, "x") * 1000;
      const range = [at(left), at(left + width)];
      this.plot.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
      if (width >= least) zoomTo(range);
    }
    /** Hours, with the date below the first of each day. */
    ticks(all) {
      const days = all.map((at) => day.format(at * 1000));
      if (this.range[1] - this.range[0] > 2.5 * 86400000) return days;
      return all.map((at, i) => (days[i] === days[i - 1] ? clock.format(at * 1000) : `${clock.format(at * 1000)}\n${days[i]}`));
    }
    size() {
      return { width: Math.max(200, this.place.clientWidth), height: 190 };
    }
    async load() {
      const fixed = this.options.fixed;
      const to = zoom ? zoom[1] : now();
      const from = zoom ? zoom[0] : to - span;
      const points = Math.min(400, Math.max(60, Math.floor(this.place.clientWidth / 2)));
      const range = fixed ? "" : `&from=${Math.round(from)}&to=${Math.round(to)}&points=${points}`;
      const state = this.place.classList;
      if (!this.data) state.add("loading");
      try {
        const answer = await fetch(this.options.src + range, { headers: { "x-live": "1" } });
        if (!answer.ok) throw new Error(answer.status);
        this.data = await answer.json();
        this.range = fixed ? [this.data.from, this.data.to] : [from, to];
        state.remove("failed");
        this.draw();
      } catch {
        state.add("failed");
      }
      state.remove("loading");
    }
    draw() {
      if (!this.data) return;
      // Points that come while someone drags wait: a new plot would lose the selection.
      this.late = dragging;
      if (this.late) return;
      const { at, series } = this.data;
      this.place.classList.toggle("none", !series.some((s) => s.mean.some((v) => v != null)));
      const values = this.values();
      this.figure.dataset.from = Math.round(this.range[0]);
      this.figure.dataset.to = Math.round(this.range[1]);
      this.plot?.destroy();
      this.plot = new uPlot(this.uplot(series), [at.map((ms) => ms / 1000), ...values], this.place);
      this.table();
    }
    values() {
      const means = this.data.series.map((s) => s.mean);
      if (!this.options.stack) return means;
      // Drawn from the top: each area holds its own value and all before it.
      return means.map((_, i) => means[0].map((_, at) =>
        means[i][at] == null ? null : means.slice(0, i + 1).reduce((sum, m) => sum + (m[at] ?? 0), 0)));
    }
    uplot(series) {
      const { unit, stack, max, labels, threshold, mark } = this.options;
      // Bytes are counted in powers of 1024, so their scale is divided by those.
      const inBytes = unit?.startsWith("bytes");
      const incrs = inBytes ? Array.from({ length: 50 }, (_, i) => 2 ** i) : undefined;
      const least = inBytes ? 1024 : 1;
      const axis = { stroke: colour("--muted"), grid: { stroke: colour("--grid"), width: 1 }, ticks: { stroke: colour("--grid"), size: 4 }, font: "11px system-ui, sans-serif" };
      const line = (s, i) => {
        const stroke = colour(`--c${(i % 8) + 1}`);
        return {
          label: labels?.[i] ?? s.name, stroke, width: 1.5, points: { show: false }, spanGaps: false,
          fill: stack ? `${stroke}70` : series.length === 1 ? `${stroke}1c` : undefined,
          value: (_, __, ___, at) => show(at == null ? s.mean.findLast((v) => v != null) : s.mean[at], unit),
        };
      };
      return {
        ...this.size(),
        legend: { live: true },
        // An area reaches down to the one below it, not to the ground.
        bands: stack ? series.slice(1).map((_, i) => ({ series: [i + 2, i + 1] })) : [],
        cursor: { y: false, sync: { key: "page", setSeries: false }, drag: { x: !this.options.fixed, y: false, setScale: false }, points: { size: 6 } },
        scales: {
          x: { range: () => this.range.map((ms) => ms / 1000) },
          y: { range: (_, low, high) => [Math.min(0, low ?? 0), max ?? Math.max((high ?? 0) * 1.08, (threshold ?? 0) * 1.15, least)] },
        },
        axes: [{ ...axis, size: 40, space: 64, values: (_, ticks) => this.ticks(ticks) }, { ...axis, ...(incrs && { incrs }), size: inBytes ? 74 : 54, values: (_, ticks) => ticks.map((v) => show(v, unit).replace(".0 ", " ")) }],
        series: [{ label: "Time", value: (_, s) => (s == null ? (this.options.fixed ? "At the breach" : "Latest") : local.format(s * 1000)) }, ...series.map(line)],
        hooks: {
          setSelect: [() => this.zoom(4)],
          // Below the lines: when the host was down, or nobody knows whether it was.
          drawClear: [(u) => {
            if (this.options.fixed) return;
            const { left, top, width, height } = u.bbox;
            for (const one of marks().outages ?? []) {
              const x = (ms) => Math.min(left + width, Math.max(left, u.valToPos(ms / 1000, "x", true)));
              const [from, to] = [x(one.from), x(one.to)];
              if (one.to <= this.range[0] || one.from >= this.range[1]) continue;
              u.ctx.fillStyle = `${colour(one.down ? "--bar-crit" : "--bar-warn")}30`;
              u.ctx.fillRect(from, top, Math.max(2, to - from), height);
            }
          }],
          draw: [(u) => {
            const rule = (horizontal, position, name, tone = "--crit") => {
              const { left, top, width, height } = u.bbox;
              u.ctx.save();
              u.ctx.strokeStyle = u.ctx.fillStyle = colour(tone);
              u.ctx.lineWidth = devicePixelRatio;
              u.ctx.setLineDash([5 * devicePixelRatio, 4 * devicePixelRatio]);
              u.ctx.beginPath();
              u.ctx.moveTo(horizontal ? left : position, horizontal ? position : top);
              u.ctx.lineTo(horizontal ? left + width : position, horizontal ? position : top + height);
              u.ctx.stroke();
              u.ctx.font = `${11 * devicePixelRatio}px system-ui, sans-serif`;
              u.ctx.textAlign = horizontal ? "left" : "right";
              u.ctx.fillText(name, horizontal ? left + 6 : position - 6 * devicePixelRatio, horizontal ? position - 5 * devicePixelRatio : top + height - 7 * devicePixelRatio);
              u.ctx.restore();
            };
            if (threshold != null) rule(true, u.valToPos(threshold, "y", true), `threshold ${show(threshold, unit)}`);
            if (mark != null) rule(false, u.valToPos(mark / 1000, "x", true), "breach");
            if (this.options.fixed) return;
            // Newest first; a number that would cover the one before it is left out.
            let free = Infinity;
            for (const one of marks().tickets ?? []) {
              if (one.at <= this.range[0] || one.at >= this.range[1]) continue;
              const at = u.valToPos(one.at / 1000, "x", true);
              const fits = at < free;
              rule(false, at, fits ? `#${one.number}` : "", "--muted");
              if (fits) free = at - 48 * devicePixelRatio;
            }
          }],
        },
      };
    }
    table() {
      const details = $("details", this.figure);
      if (!details?.open || !this.data) return;
      const { at, series } = this.data;
      const step = Math.ceil(at.length / 60);
      const table = document.createElement("table");
      const row = (tag, cells) => {
        const tr = table.insertRow();
        for (const text of cells) tr.appendChild(document.createElement(tag)).textContent = text;
      };
      row("th", ["Time", ...series.map((s, i) => this.options.labels?.[i] ?? s.name)]);
      at.forEach((ms, i) => {
        if (i % step === 0) row("td", [local.format(ms), ...series.map((s) => show(s.mean[i], this.options.unit))]);
      });
      $("div", details).replaceChildren(table);
    }
  }
  const reload = () => {
    $("[data-reset-zoom]")?.classList.toggle("hidden", !zoom);
    return Promise.all(charts.map((chart) => chart.load()));
  };
  // New points are worth drawing once a few pixels' worth of time has passed.
  let drawn = 0;
  let dragging = false;
  document.addEventListener("pointerdown", (event) => { dragging = Boolean(event.target.closest(".u-over")); });
  document.addEventListener("pointerup", () => {
    dragging = false;
    // After uPlot has seen the end of the drag, which comes with the mouse event behind this one.
    setTimeout(() => charts.filter((chart) => chart.late).forEach((chart) => chart.draw()), 50);
  });
  const advance = () => {
    if (!charts.length || zoom || dragging || now() - drawn < Math.max(9000, span / 400)) return;
    drawn = now();
    charts.filter((chart) => !chart.options.fixed).forEach((chart) => chart.load());
  };

  // ---- Range, zoom, start ----
  document.addEventListener("click", (event) => {
    const range = event.target.closest("a[data-range]");
    if (range && !event.ctrlKey && !event.metaKey && !event.shiftKey) {
      event.preventDefault();
      history.replaceState(history.state, "", range.href);
      span = Number(range.dataset.range);
      zoom = null;
      $$("a[data-range]").forEach((a) => a.setAttribute("aria-current", String(a === range)));
      reload();
    }
    if (event.target.closest("[data-reset-zoom]")) zoomTo(null);
  });
  const recolour = () => charts.forEach((chart) => chart.draw());
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", recolour);
  for (const figure of $$("figure[data-chart]")) charts.push(new Chart(figure));
  drawn = now();
  reload();
  return { advance, recolour, now, local, clock, zone };
})();
