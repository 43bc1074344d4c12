// What the pages do beyond links and forms. Without this file every page still works: it only has to be reloaded by hand.
"use strict";
(() => {
  const body = document.body;

  // live: the server says that something changed, the parts of the page that wait for it fetch themselves again.
  // One second apart at most, so that a burst of orders is one fetch.
  const quiet = 1000;
  let due = null;
  const changed = () => {
    if (due === null) due = setTimeout(() => { due = null; htmx.trigger(body, "changed"); }, quiet);
  };
  const away = (is) => body.classList.toggle("is-away", is);
  if (body.dataset.live) {
    const stream = new EventSource(body.dataset.live);
    stream.addEventListener("changed", () => { away(false); changed(); });
    stream.addEventListener("here", () => away(false));
    stream.addEventListener("away", () => away(true));
    stream.addEventListener("over", () => { stream.close(); location.reload(); });
    stream.onerror = () => away(true);
    stream.onopen = () => changed();
  }
  // what the server refuses with a page of its own (signed out, database away) is shown, not swallowed
  document.addEventListener("htmx:beforeSwap", (event) => {
    const { xhr } = event.detail;
    if (xhr.status === 401) location.reload();
    if (xhr.status === 503) away(true);
  });

  // the cards are those that the address asks for now, also where it was changed since they were made
  document.addEventListener("htmx:configRequest", (event) => {
    if (event.detail.elt.id === "cards") event.detail.path = location.pathname + location.search;
  });

  // what somebody has begun to fill in or to tick is not changed under their hands: news waits for a reload
  const begun = (event) => { const part = event.target.closest("[data-live-part]"); if (part) part.dataset.begun = ""; };
  document.addEventListener("input", begun);
  document.addEventListener("toggle", begun, true);
  document.addEventListener("htmx:beforeRequest", (event) => {
    const part = event.detail.elt;
    if (!part.matches("[data-live-part][data-begun]")) return;
    event.preventDefault();
    const news = part.querySelector("[data-news]");
    if (news) news.hidden = false;
  });

  // times: how long ago, how long left; the server wrote them once, they go on by themselves
  const words = body.dataset;
  const span = (ms) => {
    const minutes = Math.floor(Math.abs(ms) / 60000);
    const days = Math.floor(minutes / 1440), hours = Math.floor(minutes / 60) % 24, left = minutes % 60;
    if (days) return `${days} ${words.days} ${hours} ${words.hours}`;
    return hours ? `${hours} ${words.hours} ${left} ${words.minutes}` : `${left} ${words.minutes}`;
  };
  const tick = () => {
    for (const one of document.querySelectorAll("[data-until]")) {
      const left = Number(one.dataset.until) - Date.now();
      const within = one.dataset.bare === undefined ? `${words.within} ` : "";
      one.textContent = left < 0 ? `${words.over} ${span(left)}` : within + span(left);
      one.classList.toggle("late", left < 3600000);
    }
    for (const one of document.querySelectorAll("[data-since]")) one.textContent = span(Date.now() - Number(one.dataset.since));
    for (const bar of document.querySelectorAll("[data-gone]")) {
      const left = Math.ceil((Number(bar.dataset.gone) - Date.now()) / 1000);
      const count = bar.querySelector("[data-seconds]");
      if (count) count.textContent = String(Math.max(0, left));
      if (left <= 0) bar.remove();
    }
  };
  setInterval(tick, 1000);
  document.addEventListener("htmx:afterSettle", tick);
  tick();

  // a desk has room for the filters; a phone opens them
  if (matchMedia("(min-width: 60rem)").matches) for (const one of document.querySelectorAll("details[data-wide]")) one.open = true;

  // a case: all of its orders, or single ones out
  document.addEventListener("change", (event) => {
    const all = event.target.closest("[data-all]");
    if (all) for (const one of document.querySelectorAll(`input[name="${all.dataset.all}"]`)) one.checked = all.checked;
    const form = event.target.form;
    const count = form && form.querySelector("[data-chosen]");
    // ticks stand in the table, outside of the form that they belong to
    if (count) count.textContent = String([...form.elements].filter((one) => one.name === "orders" && one.checked).length);
  });

  // the desk's keyboard; nothing is decided by a key alone: it opens and focuses, Enter decides
  const typing = (where) => where.closest("input:not([type=checkbox]):not([type=radio]), textarea, select") !== null;
  const step = (by) => {
    const links = [...document.querySelectorAll(".card h2 a")];
    if (!links.length) return;
    const at = links.indexOf(document.activeElement);
    links[Math.min(links.length - 1, Math.max(0, at < 0 ? 0 : at + by))].focus();
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    // by itself Escape empties a search: here it leaves it
    if (event.key === "Escape" && typing(event.target)) { event.target.blur(); event.preventDefault(); return; }
    if (typing(event.target)) return;
    if (event.key === "j") step(1);
    else if (event.key === "k") step(-1);
    else {
      const wanted = document.querySelector(`[data-key="${CSS.escape(event.key)}"]`);
      if (!wanted) return;
      wanted.focus();
      if (!wanted.matches("input:not([type=radio]), select, textarea")) wanted.click();
    }
    event.preventDefault();
  });
  // which decision is being made shows what it needs: the right reasons, what to correct
  const decision = (form) => {
    const chosen = form.querySelector('input[name="decision"]:checked');
    for (const part of form.querySelectorAll("[data-for]")) {
      const on = chosen !== null && part.dataset.for.split(" ").includes(chosen.value);
      part.hidden = !on;
      for (const field of part.querySelectorAll("input, select, textarea")) field.disabled = !on;
    }
  };
  const decisions = () => { for (const form of document.querySelectorAll("form[data-decisions]")) decision(form); };
  document.addEventListener("change", (event) => { const form = event.target.closest("form[data-decisions]"); if (form) decision(form); });
  document.addEventListener("htmx:afterSettle", decisions);
  decisions();
  body.dataset.ready = "";
})();
