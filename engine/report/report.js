"use strict";
// The navigation, which marks the section that the reader is in.

(() => {
  const links = new Map([...document.querySelectorAll("nav a[href^='#']")]
    .map((link) => [link.hash.slice(1), link]));
  const watch = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      links.forEach((link) => { link.classList.remove("here"); link.removeAttribute("aria-current"); });
      const link = links.get(entry.target.id);
      if (link && !link.classList.contains("home")) {
        link.classList.add("here");
        link.setAttribute("aria-current", "true");
      }
    }
  }, { rootMargin: "-15% 0px -75% 0px" });
  document.querySelectorAll("section[id], header[id]").forEach((part) => watch.observe(part));
})();
