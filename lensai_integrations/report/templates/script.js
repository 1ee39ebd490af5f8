document.documentElement.classList.add("scripted");
for (const button of document.querySelectorAll("nav button")) {
  button.addEventListener("click", () => {
    const section = document.getElementById(button.dataset.section);
    section.scrollIntoView({ behavior: "smooth", block: "start" });
    section.focus({ preventScroll: true });
  });
}
