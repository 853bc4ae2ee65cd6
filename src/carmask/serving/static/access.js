// The access token, for services that want one.

import { useToken } from "./api.js";

const WANTED = "This service wants an access token; whoever runs it gives you one.";
const REFUSED = "This token was not accepted.";

/**
 * Return a function that asks for a token: it shows the form, and resolves when there is a token to try.
 *
 * form: the page's form, with a field, a button and a line for words.
 */
export function makeAsker(form) {
  const field = form.querySelector("input");
  const note = form.querySelector("[role=alert]");
  let asked = null;
  let isTried = false;

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    useToken(field.value.trim());
    isTried = true;
    form.hidden = true;
    asked?.resolve();
    asked = null;
  });

  return () => {
    // Requests that are refused together wait for one answer.
    if (asked === null) {
      let resolve;
      const promise = new Promise((done) => (resolve = done));
      asked = { promise, resolve };
      form.hidden = false;
      note.textContent = isTried ? REFUSED : WANTED;
      field.focus();
      field.select();
    }
    return asked.promise;
  };
}
