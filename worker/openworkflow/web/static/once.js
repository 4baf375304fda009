// Sends a form that does something once: the second click of two would do it again.
(() => {
  const LONGEST = 30000; // then nothing has come of the first, and people may try again
  let sent = -Infinity;
  document.addEventListener("submit", (event) => {
    if (event.target.method !== "post") return;
    if (performance.now() - sent < LONGEST) event.preventDefault();
    else sent = performance.now();
  });
  // Whoever comes back to a page that the browser kept may do it again.
  window.addEventListener("pageshow", () => { sent = -Infinity; });
})();
