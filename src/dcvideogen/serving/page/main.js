// Puts the page together.
import { forgetKey, json, Refused, server, storedKey, Unreachable } from "./api.js";
import { byId, text } from "./dom.js";
import { VideoForm } from "./form.js";
import { Gallery } from "./gallery.js";
import { jobs } from "./jobs.js";
import { baseOf, loadModels } from "./models.js";
import { showPlan } from "./plan.js";
import { Reconstruction, showTabs } from "./reconstruct.js";
import { Screen } from "./screen.js";
import { Viewer } from "./viewer.js";

/** One line where people look after they pressed something. */
function report(error) {
  if (!(error instanceof Refused || error instanceof Unreachable)) console.error(error);
  for (const id of ["complaint", "reconstruct-complaint"]) text(byId(id), error.message);
}

const quiet = () => ["complaint", "reconstruct-complaint"].forEach((id) => text(byId(id), ""));

/** Queues what the form says, for one model or also for its base; shows the last of them. */
async function generate(form, screen, both) {
  const buttons = [byId("generate-go"), byId("compare")];
  if (buttons[0].disabled || !form.element.reportValidity()) return;
  quiet();
  for (const button of buttons) button.disabled = true;
  try {
    let request = await form.request();
    if (both) {
      // The same noise for both, so that what differs is the models' doing.
      request = { seed: crypto.getRandomValues(new Uint32Array(1))[0], ...request };
      jobs.add(await queue(form, { ...request, model: baseOf(request.model).id }));
    }
    const job = await queue(form, request);
    jobs.add(job);
    screen.show(job);
    if (matchMedia("(max-width: 899px)").matches) byId("screen").scrollIntoView({ block: "start" });
  } catch (error) {
    report(error);
  } finally {
    for (const button of buttons) button.disabled = false;
  }
}

async function queue(form, request) {
  const ask = (body) => json("v1/videos", { method: "POST", json: body });
  try {
    return await ask(request);
  } catch (error) {
    const forgotten = error instanceof Refused && error.code === "upload_not_found";
    if (!forgotten || !(await form.sendAgain())) throw error;
    return ask({ ...request, ...(await form.pictures()) });
  }
}

/** Whether the server answers, told once at the top. */
function watchServer() {
  server.addEventListener("lost", () => {
    byId("offline").hidden = false;
  });
  server.addEventListener("back", () => {
    byId("offline").hidden = true;
    quiet();
  });
}

function listen(form, screen) {
  form.element.addEventListener("submit", (event) => {
    event.preventDefault();
    generate(form, screen, false);
  });
  form.element.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    generate(form, screen, false);
  });
  byId("compare").addEventListener("click", () => generate(form, screen, true));
  form.addEventListener("change", quiet);
  // A file that misses its field must not replace the page.
  for (const name of ["dragover", "drop"]) addEventListener(name, (event) => event.preventDefault());
}

function keyButton() {
  const button = byId("forget-key");
  button.hidden = storedKey() === null;
  button.addEventListener("click", () => {
    forgetKey();
    location.reload();
  });
}

/** Waits for the server as often as it takes. */
async function patiently(ask) {
  for (;;) {
    try {
      return await ask();
    } catch (error) {
      if (!(error instanceof Unreachable)) throw error;
      await new Promise((resolve) => server.addEventListener("back", resolve, { once: true }));
    }
  }
}

/** The first tab. */
function startVideos(models) {
  const form = new VideoForm(models);
  const screen = new Screen(report);
  const reuse = (job) => {
    form.fill(job);
    byId("prompt").focus();
    byId("generate").scrollIntoView({ block: "start" });
  };
  const viewer = new Viewer({ reuse, report });
  new Gallery({ open: (job) => viewer.open(job), reuse, report });
  listen(form, screen);
  const plan = showPlan(form);
  jobs.addEventListener("list", plan); // the queue is another one
  server.addEventListener("back", plan);
}

async function main() {
  watchServer();
  addEventListener("hashchange", showTabs);
  showTabs();
  try {
    const models = await patiently(loadModels);
    if (models.some((each) => each.task !== "autoencoder")) {
      startVideos(models);
    } else {
      byId("generate-link").hidden = true;
      location.hash = "#reconstruct";
    }
    new Reconstruction(models, report);
    keyButton();
    jobs.start();
    await patiently(() => jobs.refresh());
    document.body.dataset.ready = "true";
  } catch (error) {
    report(error);
  }
}

main();
