document.documentElement.classList.add("scripted");

const MINUTE = 60000;
const loaded = Date.now();
const box = document.getElementById("filter");

async function loadAgain() {
  if (document.hidden || Date.now() - loaded < MINUTE - 1000) return;
  const stale = document.getElementById("stale");
  try {
    await fetch(location.href, { method: "HEAD", cache: "no-store" });
  } catch {
    stale.hidden = false;  // a reload would put the browser's own error in place of what is known
    return;
  }
  if (document.activeElement !== box || box.value === "") location.reload();
}

function filter() {
  const wanted = box.value.trim().toLowerCase();
  const rows = [...document.querySelectorAll("tr[data-name]")];
  for (const row of rows) row.hidden = !row.dataset.name.toLowerCase().includes(wanted);
  const shown = rows.filter((row) => !row.hidden).length;
  document.querySelector("output").textContent = wanted ? `${shown} of ${rows.length}` : "";
  document.querySelector(".none").hidden = shown > 0;
  history.replaceState(null, "", wanted ? `#${encodeURIComponent(box.value)}` : "#");
}

if (box) {
  box.addEventListener("input", filter);
  try {
    box.value = decodeURIComponent(location.hash.slice(1));
  } catch {
    box.value = "";
  }
  if (box.value) filter();
}
setInterval(loadAgain, MINUTE);
document.addEventListener("visibilitychange", loadAgain);
