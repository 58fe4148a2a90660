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

  // On a phone a figure of several panels that is too wide becomes one panel below another, each cut out of the same
  // picture; what is still too wide scrolls within its frame. Figures are made at 150 dots an inch: at 0.6 of them text of
  // 8 points has 10 pixels, and none is smaller unless the picture says so.
  const phone = matchMedia("(max-width: 40rem)");
  const LEAST = 0.62;
  const PADDING = 13; // of a picture in the dark, both sides
  const MARGINS = 44; // of the screen, which panels leave free where they can: wider is taller, and a first screen short
  const MOST = 0.85;

  function stack(image) {
    const panels = JSON.parse(image.dataset.panels);
    const widths = panels.flatMap((lines) => lines.map((line) => line.reduce((sum, [x0, , x1]) => sum + x1 - x0, 0)));
    const stacked = document.createElement("div");
    image.after(stacked);
    const room = (stacked.clientWidth - MARGINS) / Math.max(...widths);
    const whole = Math.min(MOST * image.naturalWidth, Math.max(LEAST * image.naturalWidth, room));
    const high = (whole * image.naturalHeight) / image.naturalWidth;
    stacked.className = "stacked";
    stacked.setAttribute("role", "img");
    stacked.setAttribute("aria-label", image.alt);
    for (const lines of panels) {
      const panel = stacked.appendChild(document.createElement("div"));
      for (const line of lines) {
        const row = panel.appendChild(document.createElement("div"));
        for (const [x0, y0, x1, y1] of line) {
          const piece = row.appendChild(document.createElement("span"));
          piece.style.cssText = `width: ${whole * (x1 - x0)}px; height: ${high * (y1 - y0)}px`;
          const copy = piece.appendChild(new Image());
          copy.src = image.src;
          copy.alt = "";
          copy.style.cssText = `width: ${whole}px; left: ${-whole * x0}px; top: ${-high * y0}px`;
        }
      }
    }
    image.hidden = true;
  }

  const turn = document.createElement("p");
  turn.className = "turn";
  turn.textContent = "scrolls; whole on a phone held sideways";

  document.querySelectorAll(".bd-article figure img[src*='_images/'], .bd-article div.cell_output img[src*='_images/']")
    .forEach((image) => {
      const fit = () => {
        if (!phone.matches || image.hidden) return;
        const frame = image.closest("figure") ?? image.parentElement;
        const least = Math.ceil((image.naturalWidth * 0.6 * 8) / (image.dataset.text ?? 8)) + PADDING;
        if (image.dataset.panels && least > frame.clientWidth) stack(image);
        else image.style.setProperty("--whole", `${least}px`);
        if (frame.scrollWidth <= frame.clientWidth) return;
        reach(frame, "figure, scrolls sideways");
        const before = turn.isConnected && frame.compareDocumentPosition(turn) & Node.DOCUMENT_POSITION_PRECEDING;
        if (!image.dataset.panels && !before) (image.closest("a") ?? image).after(turn);
      };
      image.complete && image.naturalWidth ? fit() : image.addEventListener("load", fit);
    });
})();
