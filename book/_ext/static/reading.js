/* One switch a page, "show how": code, parameters and hidden cells are shown or not; remembered from page to page. */
(function () {
  const article = document.querySelector("article.bd-article");
  if (!article || !article.querySelector("div.cell")) return;
  const store = { get: () => { try { return localStorage.getItem("how"); } catch { return null; } },
                  set: (v) => { try { localStorage.setItem("how", v); } catch { /* a private window */ } } };
  const button = document.createElement("button");
  button.className = "how";
  button.type = "button";
  function show(on) {
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
