// The theme that was chosen, before anything is drawn; the button goes from the system's to light to dark.
(() => {
  const root = document.documentElement;
  const read = () => { try { return localStorage.getItem("theme") || ""; } catch { return ""; } };
  const show = (theme) => {
    root.dataset.theme = theme;
    const button = document.getElementById("theme");
    if (button) button.setAttribute("aria-label", `Theme: ${theme || "as the system"}`);
  };
  show(read());
  document.addEventListener("DOMContentLoaded", () => {
    show(read());
    document.getElementById("theme").addEventListener("click", () => {
      const themes = ["", "light", "dark"];
      const next = themes[(themes.indexOf(read()) + 1) % themes.length];
      try { localStorage.setItem("theme", next); } catch { /* it lasts as long as the page then */ }
      show(next);
    });
  });
  // "/" goes to the filter, as people know it from elsewhere.
  document.addEventListener("keydown", (event) => {
    const field = document.getElementById("where");
    const typing = event.target.closest("input, textarea, select");
    if (event.key === "/" && field && !typing && !event.ctrlKey && !event.metaKey) {
      event.preventDefault();
      field.focus();
    }
  });
})();
