// The live page: asks once a second how the stream is, and shows its pictures. No libraries.
"use strict";

const EVERY_MS = 1000;
const PATIENCE_MS = 5000;

const at = (id) => document.getElementById(id);
const picture = at("picture");
const shown = { stream: null, reachable: true, attempt: 0 };

function text(element, words) {
  if (element.textContent !== words) element.textContent = words;
}

function make(tag, words = "") {
  const element = document.createElement(tag);
  element.textContent = words;
  return element;
}

function percent(share) {
  const value = 100 * share;
  return value > 0 && value < 0.1 ? "<0.1\u00a0%" : `${value.toFixed(1)}\u00a0%`;
}

function count(number) {
  return number.toLocaleString("en-US").replaceAll(",", "\u2009");
}

function duration(seconds) {
  const units = [["d", 86400], ["h", 3600], ["min", 60]];
  for (const [unit, length] of units) {
    if (seconds >= length) return `${Math.floor(seconds / length)} ${unit}`;
  }
  return `${Math.floor(seconds)} s`;
}

// Pictures

function watch() {
  if (document.hidden || shown.stream === null) {
    picture.removeAttribute("src");
    return;
  }
  shown.attempt += 1;
  const name = encodeURIComponent(shown.stream);
  picture.src = `/stream.mjpg?stream=${name}&attempt=${shown.attempt}`;
}

picture.addEventListener("load", () => {
  picture.hidden = false;
  at("waiting").hidden = true;
  at("screen").classList.add("filled");
});
picture.addEventListener("error", () => {
  if (picture.hasAttribute("src")) setTimeout(watch, 3000);
});
document.addEventListener("visibilitychange", watch);

function choose(name) {
  shown.stream = name;
  picture.hidden = true;
  at("waiting").hidden = false;
  at("screen").classList.remove("filled");
  watch();
}

// Figures

function showState(state, reason) {
  at("state").dataset.state = state;
  text(at("state-name"), state);
  text(at("reason"), reason);
  at("reason").hidden = !reason;
  at("screen").classList.toggle("old", !["live", "starting"].includes(state));
}

function showStreams(streams) {
  const nav = at("streams");
  nav.hidden = streams.length < 2;
  if (!streams.some((stream) => stream.name === shown.stream)) {
    nav.replaceChildren(...streams.map((stream) => {
      const button = make("button", stream.name);
      button.type = "button";
      button.addEventListener("click", () => {
        choose(stream.name);
        ask();
      });
      return button;
    }));
    if (streams.length) choose(streams[0].name);
  }
  streams.forEach((stream, index) => {
    const button = nav.children[index];
    if (!button) return;
    button.setAttribute("aria-pressed", String(stream.name === shown.stream));
    button.dataset.state = stream.state;
  });
}

function showFigures(health, stream) {
  text(at("fps"), stream.delivered ? stream.fps.toFixed(1) : "–");
  text(at("age"), stream.age_ms ? Math.round(stream.age_ms.p50).toString() : "–");
  const lost = stream.dropped + stream.superseded;
  text(at("dropped"), stream.captured ? percent(lost / stream.captured) : "–");
  const failed = stream.failed ? `, ${count(stream.failed)} failed` : "";
  text(at("dropped-note"), `dropped: ${count(lost)} of ${count(stream.captured)} frames${failed}`);
  showHeat(health, stream);
}

function showHeat(health, stream) {
  const hottest = Math.max(...Object.values(health.temperature_c));
  const slowed = health.throttled === true;
  const silent = stream.last_result_s === null ? "–" : `${stream.last_result_s.toFixed(1)}\u00a0s`;
  text(at("heat"), Number.isFinite(hottest) ? `${Math.round(hottest)}\u00a0°C` : slowed ? "hot" : silent);
  at("heat").classList.toggle("warn", slowed);
  const note = Number.isFinite(hottest) ? "hottest sensor" : "since the last result";
  text(at("heat-note"), slowed ? "throttled: the machine slows down" : note);
}

function showClasses(classes) {
  const list = at("classes");
  if (!classes.length) {
    list.replaceChildren(Object.assign(make("li", "No result yet"), { className: "none" }));
    return;
  }
  if (list.childElementCount !== classes.length || !list.querySelector(".row")) {
    list.replaceChildren(...classes.map(() => {
      const row = Object.assign(make("li"), { className: "row" });
      const track = Object.assign(make("div"), { className: "track" });
      track.append(make("i"));
      row.append(make("span"), make("b"), track);
      return row;
    }));
  }
  classes.forEach((one, index) => {
    const row = list.children[index];
    text(row.querySelector("span"), one.name);
    text(row.querySelector("b"), percent(one.share));
    const bar = row.querySelector("i");
    bar.style.width = `${100 * one.share}%`;
    bar.style.background = one.colour;
  });
}

function showEvents(events, several) {
  const list = at("events");
  const key = events.map((event) => event.time_s).join();
  if (list.dataset.key === key) return;
  list.dataset.key = key;
  if (!events.length) return;
  list.replaceChildren(...[...events].reverse().map((event) => {
    const item = make("li");
    item.dataset.state = event.state;
    const moment = new Date(1000 * event.time_s);
    const time = make("time", moment.toLocaleTimeString([], { hour12: false }));
    time.dateTime = moment.toISOString();
    item.append(time, make("b", several ? `${event.stream} ${event.state}` : event.state));
    if (event.detail) item.append(make("span", event.detail));
    return item;
  }));
}

function showAbout(health) {
  const about = health.about;
  text(at("source"), about.source || "cclseg");
  document.title = `${health.state} · ${about.source || "cclseg"}`;
  text(at("model"), [about.model, about.precision, about.backend].filter(Boolean).join(" · "));
  const restarts = health.streams.reduce((sum, stream) => sum + stream.restarts, 0);
  const words = [`cclseg ${health.version}`, `running for ${duration(health.uptime_s)}`];
  if (restarts) words.push(`source restarted ${restarts === 1 ? "once" : `${restarts} times`}`);
  text(at("footer"), words.join(" · "));
}

function show(health) {
  showAbout(health);
  showStreams(health.streams);
  const stream = health.streams.find((one) => one.name === shown.stream);
  const several = health.streams.length > 1;
  const ending = ["stopping", "ended", "failed"].includes(health.state);
  const from = several && stream && !ending ? stream : health;
  showState(from.state, from.reason);
  if (stream) {
    showFigures(health, stream);
    showClasses(stream.classes);
  }
  showEvents(health.events, several);
}

async function ask() {
  try {
    const answer = await fetch("/healthz", { signal: AbortSignal.timeout(PATIENCE_MS) });
    const health = await answer.json();
    if (!shown.reachable) watch(); // the pictures have ended with the connection
    shown.reachable = true;
    show(health);
  } catch (error) {
    console.debug(error);
    shown.reachable = false;
    showState("unreachable", "No connection to the device; trying again");
  }
}

async function run() {
  for (;;) {
    if (!document.hidden) await ask();
    await new Promise((go) => setTimeout(go, EVERY_MS));
  }
}

run();
