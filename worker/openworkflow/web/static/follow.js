// Says so while a page does not follow what it shows: else it looks as if nothing happened.
(() => {
  const SILENCE = 40000; // the dashboard says every 15 seconds that it is there
  // Of when that is, by the dashboard's clock: the browser's may be wrong.
  let shown = document.documentElement.dataset.now;
  let heard = performance.now();
  let silent = false;
  const follows = () => document.querySelector("[hx-sse\\:connect]");
  const tell = (why, again) => {
    const place = document.getElementById("trouble");
    if (!place || !follows()) return;
    const told = document.createElement("p");
    told.className = "trouble";
    told.append(`What is shown is of ${shown} UTC: ${why} `);
    if (again) {
      const link = document.createElement("a");
      link.href = location.href;
      link.textContent = again;
      told.append(link);
    }
    if (place.textContent !== told.textContent) place.replaceChildren(told);
  };
  // What comes of a page brings a #trouble of its own, and so takes this away.
  document.addEventListener("htmx:sse:before:message", (event) => {
    if (event.detail.message.event !== "full") heard = performance.now();
    else tell("too many pages are followed at once. It is tried again and again.");
  });
  document.addEventListener("htmx:sse:after:message", (event) => {
    const { event: name, id } = event.detail.message;
    const place = document.getElementById("trouble");
    if (silent && name === "here") place.replaceChildren(); // nothing has changed, and it is there
    silent = false;
    if (name !== "full" && id && !place.textContent) shown = id;
  });
  const failed = (status) => {
    if (status === 401) tell("you are not logged in any more.", "Log in");
    else if (status) tell(`the dashboard answers with ${status}.`, "Load the page again");
    else tell("the dashboard does not answer. It is asked again and again.");
  };
  document.addEventListener("htmx:sse:error", (event) => failed(event.detail.status));
  // The first look of a page is not asked for again by hx-sse, which does so of all that follow.
  const first = (event) => {
    const ctx = event.detail.ctx;
    const page = ctx && ctx.sourceElement;
    if (!page || page !== follows()) return;
    const status = ctx.response && ctx.response.status;
    failed(status);
    if (status !== 401) setTimeout(() => htmx.ajax("GET", page.getAttribute("hx-sse:connect"), { source: page }), 5000);
  };
  document.addEventListener("htmx:response:error", first);
  document.addEventListener("htmx:error", first);
  document.addEventListener("visibilitychange", () => { heard = performance.now(); });
  setInterval(() => {
    if (document.hidden || performance.now() - heard <= SILENCE) return;
    silent = !document.getElementById("trouble").textContent || silent;
    tell("nothing has come since.", "Load the page again");
  }, 5000);
})();
