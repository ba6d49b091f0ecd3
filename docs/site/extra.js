// Names for parts of the theme that have none, and the keyboard for tables that scroll sideways.
const scrolling = new ResizeObserver((entries) => {
  for (const { target } of entries) {
    if (target.scrollWidth > target.clientWidth) target.tabIndex = 0;
    else target.removeAttribute("tabindex");
  }
});

document$.subscribe(() => setTimeout(() => {  // after the theme has wrapped its tables
  document.querySelector(".md-search")?.setAttribute("aria-label", "Search");
  document.querySelectorAll(".md-code__nav").forEach((nav, i) => nav.setAttribute("aria-label", `Code block ${i + 1}`));
  document.querySelectorAll(".md-typeset__scrollwrap").forEach((box) => scrolling.observe(box));
  for (const code of document.querySelectorAll("td code")) {  // long names break after dots and underlines only
    if (code.childElementCount === 0) code.replaceChildren(...code.textContent.split(/(?<=[._/])/).flatMap((part) => [part, document.createElement("wbr")]));
  }
}));
