/* What the theme leaves undone for those who read by keyboard, by ear, or on a phone. */
(function () {
  // A name that hides the button's visible text cannot be spoken to it.
  document.querySelectorAll(".search-button-field[aria-label], details.hide > summary[aria-label]")
    .forEach((e) => e.removeAttribute("aria-label"));

  // What scrolls by itself can be reached by keys.
  function reach(element, said) {
    if (element.hasAttribute("tabindex")) return;
    element.tabIndex = 0;
    element.setAttribute("role", "group");
    element.setAttribute("aria-label", said);
  }
  document.querySelectorAll(".pst-scrollable-table-container").forEach((e) => reach(e, "table, scrolls sideways"));

  // Figures are made for 7 inches at 150 dots. On a phone they keep the width at which their smallest text, of 8 points,
  // has 10 pixels, a little padding included, and scroll within their frame.
  document.querySelectorAll(".bd-article figure img[src*='_images/'], .bd-article div.cell_output img[src*='_images/']")
    .forEach((image) => {
      const keep = () => {
        image.style.setProperty("--whole", `${Math.ceil(image.naturalWidth * 0.62)}px`);
        if (matchMedia("(max-width: 40rem)").matches) reach(image.closest("figure") ?? image.parentElement, "figure, scrolls sideways");
      };
      image.complete && image.naturalWidth ? keep() : image.addEventListener("load", keep);
    });
})();
