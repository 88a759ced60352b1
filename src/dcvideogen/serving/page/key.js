// The question for an API key, asked once for all requests that wait for one.
import { byId, text } from "./dom.js";

let asked = null;

/** Resolves to what was typed; complaint: what was wrong with the last one. The dialog cannot be left without a key. */
export function askForKey(complaint) {
  asked ??= new Promise((resolve) => {
    const dialog = byId("key-dialog");
    const field = byId("key");
    text(byId("key-complaint"), complaint);
    const keep = (event) => event.preventDefault();
    dialog.addEventListener("cancel", keep);
    byId("key-form").addEventListener(
      "submit",
      (event) => {
        event.preventDefault();
        dialog.removeEventListener("cancel", keep);
        dialog.close();
        asked = null;
        const key = field.value.trim();
        field.value = "";
        resolve(key);
      },
      { once: true },
    );
    dialog.showModal();
    field.focus();
  });
  return asked;
}
