document.documentElement.classList.add("scripted");

const MINUTE = 60000;
const PARTS = ["header", "main", "footer"];
let loaded = Date.now();

function filter() {
  const box = document.getElementById("filter");
  if (!box) return;
  const wanted = box.value.trim().toLowerCase();
  const rows = [...document.querySelectorAll("tr[data-name]")];
  for (const row of rows) row.hidden = !row.dataset.name.toLowerCase().includes(wanted);
  for (const part of document.querySelectorAll(".sensors tbody")) part.hidden = !part.querySelector("tr[data-name]:not([hidden])");
  const shown = rows.filter((row) => !row.hidden).length;
  document.querySelector("output").textContent = wanted ? `${shown} of ${rows.length}` : "";
  document.querySelector(".none").hidden = shown > 0;
}

async function freshPage() {
  const answer = await fetch(location.href, { cache: "no-store" });
  if (!answer.ok) throw new Error(answer.statusText);
  return new DOMParser().parseFromString(await answer.text(), "text/html");
}

// What is typed, unfolded and scrolled to stays as it is; so does the whole page while the server does not answer.
async function refresh() {
  if (document.hidden || Date.now() - loaded < MINUTE - 1000) return;
  let fresh;
  try {
    fresh = await freshPage();
  } catch {
    document.getElementById("stale").hidden = false;
    return;
  }
  const top = scrollY;
  const focused = document.activeElement;
  const link = focused?.getAttribute("href");
  const unfolded = [...document.querySelectorAll("details")].map((each) => each.open);
  const box = document.getElementById("filter");
  for (const part of PARTS) document.querySelector(part).replaceWith(fresh.querySelector(part));
  document.querySelectorAll("details").forEach((each, place) => { each.open = unfolded[place] ?? false; });
  document.title = fresh.title;
  loaded = Date.now();
  const place = document.getElementById("filter");
  if (box && place) place.replaceWith(box);
  if (focused === box) box?.focus({ preventScroll: true });
  else if (link) document.querySelector(`a[href="${CSS.escape(link)}"]`)?.focus({ preventScroll: true });
  filter();
  scrollTo({ top, behavior: "instant" });
}

document.addEventListener("input", filter);
filter();
setInterval(refresh, MINUTE);
document.addEventListener("visibilitychange", refresh);
