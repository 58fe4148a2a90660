/* One switch a page, "show how": code, parameters, hidden cells and long tables are shown or not; remembered from page to
   page. */
(function () {
  const article = document.querySelector("article.bd-article");
  if (!article || !article.querySelector("div.cell")) return;
  const store = { get: () => { try { return localStorage.getItem("how"); } catch { return null; } },
                  set: (v) => { try { localStorage.setItem("how", v); } catch { /* a private window */ } } };
  const button = document.createElement("button");
  button.className = "how";
  button.type = "button";
  const LONG = 10; // rows above which a table is asked for by a line of its own
  const folds = [...article.querySelectorAll("div.cell_output table:not(.matrix)")].flatMap((table) => {
    const rows = table.tBodies[0]?.rows.length ?? 0;
    if (rows <= LONG) return [];
    const fold = document.createElement("details");
    fold.className = "long";
    fold.append(document.createElement("summary"));
    const heads = [...table.rows[0].cells].map((cell) => cell.textContent.trim()).filter((said) => /^[^\\]+$/.test(said));
    fold.firstChild.textContent = `Table of ${rows} rows: ${heads.slice(0, 4).join(", ")}${heads.length > 4 ? " …" : ""}`;
    const whole = table.closest(".pst-scrollable-table-container") ?? table;
    whole.before(fold);
    fold.append(whole);
    return [fold];
  });
  addEventListener("beforeprint", () => folds.forEach((fold) => { fold.open = true; }));
  function show(on) {
    folds.forEach((fold) => { fold.open = on; });
    document.documentElement.classList.toggle("quiet", !on);
    button.setAttribute("aria-pressed", String(on));
    button.textContent = on ? "hide how" : "show how";
  }
  button.addEventListener("click", () => {
    const on = document.documentElement.classList.contains("quiet");
    store.set(on ? "on" : "off");
    show(on);
  });
  show(store.get() === "on" || new URLSearchParams(location.search).has("how"));
  article.querySelector("h1").before(button);
})();
