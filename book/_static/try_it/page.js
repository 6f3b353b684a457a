// The page *Try it*: one tab explains photographs, the other scenes. Networks,
// and the worker that runs them, are loaded when a reader asks for them.
import { ask, attempt, built, find, findAll } from "./common.js";
import { beginPhotographs } from "./photographs.js";
import { beginScenes } from "./scenes.js";

const loaded = new Set();

// Say how much there is to load; load it when asked, then call `begin`.
function offer(panel, told, begin) {
  const { pair } = panel.dataset;
  const button = find(".try-it-load button", panel);
  const progress = find("progress", panel);
  const { bytes, classes } = told.pairs[pair];
  find("[data-classes]", panel).textContent = classes.join(", ");
  // The program comes with the first pair.
  const all = () => bytes + (loaded.size ? 0 : told.program);
  const tell = () => {
    button.textContent = `Load ${Math.ceil(all() / 1e6)} MB and start`;
  };
  tell();
  document.addEventListener("try-it-loaded", tell);
  const load = async () => {
    Object.assign(progress, { max: all(), value: 0, hidden: false });
    await ask({ task: "load", pair }, (n) => {
      progress.value += n;
    });
    await begin(panel, told);
    loaded.add(pair);
    find(".try-it-load", panel).hidden = true;
    find(".try-it-work", panel).hidden = false;
    document.dispatchEvent(new Event("try-it-loaded"));
  };
  button.addEventListener("click", async () => {
    button.disabled = true;
    await attempt(panel, load);
    button.disabled = false;
    progress.hidden = true;
  });
}

function tabs() {
  const all = findAll("[role=tab]");
  const select = (tab) => {
    for (const each of all) {
      const on = each === tab;
      each.setAttribute("aria-selected", on);
      each.tabIndex = on ? 0 : -1;
      document.getElementById(each.getAttribute("aria-controls")).hidden = !on;
    }
  };
  all.forEach((tab, i) => {
    tab.addEventListener("click", () => select(tab));
    tab.addEventListener("keydown", ({ key }) => {
      if (key !== "ArrowLeft" && key !== "ArrowRight") return;
      const other = all[(i + 1) % all.length];
      select(other);
      other.focus();
    });
  });
  select(all[0]);
  find(".try-it-tabs").hidden = false;
}

const refuse = (why) =>
  Object.assign(find(".try-it-note"), { hidden: false, textContent: why });

async function start() {
  if (
    typeof WebAssembly !== "object" ||
    typeof OffscreenCanvas !== "function"
  ) {
    return refuse(
      "This browser cannot run the networks, for it has no WebAssembly or is " +
        "too old: take a current Firefox, Chrome, Edge or Safari.",
    );
  }
  const answer = await fetch(built("try_it.json"));
  if (!answer.ok) {
    return refuse(
      "This copy of the book was built without the networks: `make book` " +
        "fetches and writes them where there is a connection.",
    );
  }
  const told = await answer.json();
  tabs();
  offer(document.getElementById("try-it-photograph"), told, beginPhotographs);
  offer(document.getElementById("try-it-scene"), told, beginScenes);
}

start();
