(() => {
  "use strict";
  const token = new URLSearchParams(location.search).get("token");
  const place = (id) => document.getElementById(id);
  const run = place("watch").dataset.run;
  let version = "", first = "0", paused = false;

  const get = async (path, more = {}) => {
    const query = new URLSearchParams({ token, run, ...more });
    const answer = await fetch(`${path}?${query}`);
    if (!answer.ok) throw new Error(String(answer.status));
    return answer.text();
  };
  const show = (id, html) => { if (place(id).innerHTML !== html) place(id).innerHTML = html; };

  const samples = async () => {
    const form = new FormData(place("query"));
    show("samples", await get("/samples", { ...Object.fromEntries(form), first }));
  };
  const follow = async () => {
    const html = await get("/status");
    show("status", html);
    if (place("runs")) show("runs", await get("/runs"));
    const found = place("status").querySelector("[data-version]");
    if (found && found.dataset.version !== version) {
      version = found.dataset.version;
      place("rounds").innerHTML = await get("/rounds");
      document.dispatchEvent(new Event("charts"));
      if (first === "0" && !place("samples").contains(document.activeElement)) await samples();
    }
  };
  const step = async () => {
    if (!document.hidden && !paused) {
      paused = true;
      try { await follow(); place("lost").hidden = true; }
      catch (error) { place("lost").hidden = false; }
      paused = false;
    }
    setTimeout(step, 2000);
  };

  for (const link of document.querySelectorAll("a[data-to]")) {
    link.href = `/?${new URLSearchParams({ token, run: link.dataset.to })}`;
  }
  place("query").addEventListener("submit", (event) => { event.preventDefault(); });
  place("query").addEventListener("change", () => { first = "0"; samples(); });
  place("samples").addEventListener("click", (event) => {
    const to = event.target.closest("button[data-first]");
    if (to) { first = to.dataset.first; samples(); }
  });
  step();
})();
