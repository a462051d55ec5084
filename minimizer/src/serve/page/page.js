// Renews the page in place: sections that have changed are replaced, the rest stays as the reader left it.
"use strict";

const milliseconds = Number(document.body.dataset.seconds) * 1000;
const gone = document.getElementById("gone");
let answered = new Date();

function isOpen(section) {
  const open = section.querySelectorAll("details[open]");
  return new Set(Array.from(open, (details) => details.dataset.key));
}

function replace(before, after) {
  const open = isOpen(before);
  for (const details of after.querySelectorAll("details")) {
    details.open = open.has(details.dataset.key);
  }
  if (before.outerHTML !== after.outerHTML && !before.contains(document.activeElement)) {
    before.replaceWith(document.adoptNode(after));
  }
}

async function renew() {
  const selection = document.getSelection();
  if (document.hidden || (selection && !selection.isCollapsed)) {
    return;
  }
  try {
    const answer = await fetch("/", { cache: "no-store", signal: AbortSignal.timeout(10000) });
    if (!answer.ok) {
      throw new Error(`it answers ${answer.status}`);
    }
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const after of page.querySelectorAll("main > [id]")) {
      const before = document.getElementById(after.id);
      if (before) {
        replace(before, after);
      }
    }
    document.title = page.title;
    answered = new Date();
    gone.hidden = true;
  } catch (error) {
    gone.textContent = `The agent does not answer. What follows is as of ${answered.toLocaleTimeString()}.`;
    gone.hidden = false;
  }
}

async function forever() {
  await renew();
  setTimeout(forever, milliseconds);
}

setTimeout(forever, milliseconds);
document.addEventListener("visibilitychange", renew);
