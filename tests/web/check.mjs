// Every built page as a reader meets it: in a browser, on a desk and on a phone.
//   node tests/web/check.mjs [--shots FOLDER] [PAGE ...]
// Exits with 1 and a line for each fault. See the Makefile's test-web for what it needs.
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { basename, extname, join, normalize, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";

const ROOT = resolve(fileURLToPath(import.meta.url), "../../..");
const SITE = join(ROOT, "_build/html");
const require = createRequire(join(ROOT, "_build/web/"));
const { chromium } = require("playwright-core");
const AXE = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

// Light on a desk and dark on a phone: two visits see both widths and both palettes.
const VISITS = [
  { name: "desk", viewport: { width: 1280, height: 800 }, colorScheme: "light" },
  { name: "phone", viewport: { width: 390, height: 844 }, colorScheme: "dark" },
];
const BROWSERS = ["chromium", "chromium-browser", "google-chrome"];
const PAGE_BYTES = 1e6; // a page with its own figures, compressed; scripts and fonts of all pages are shared
const TEXT_PX = 10; // the smallest text of a figure on a phone
const TEXT_PT = 8; // the smallest text of a figure that does not say its own, in points of the figure as it is made

const browserPath = process.env.CHROMIUM
  ?? process.env.PATH.split(":").flatMap((folder) => BROWSERS.map((name) => join(folder, name))).find(existsSync);
const args = process.argv.slice(2);
const shots = args[0] === "--shots" ? args.splice(0, 2)[1] : null;
const pages = readdirSync(join(SITE, "book")).filter((name) => name.endsWith(".html"))
  .filter((name) => !args.length || args.some((part) => name.includes(part))).sort();
if (!pages.length) throw new Error(`no page in ${SITE}/book: run \`make html\` first`);

const server = createServer(serve).listen(0, "127.0.0.1");
await new Promise((ready) => server.once("listening", ready));
const HOME = `http://127.0.0.1:${server.address().port}`;
const browser = await chromium.launch({ executablePath: browserPath, args: ["--no-sandbox", "--disable-gpu"] });
let faults = 0;
for (const name of pages) {
  const path = join(SITE, "book", name);
  tell(name, [...weigh(path), ...dead(path)]);
  for (const visit of VISITS) tell(`${name} (${visit.name})`, await look(path, visit));
}
await browser.close();
server.close();
console.log(`${pages.length} pages, ${VISITS.length} visits each: ${faults || "no"} faults`);
process.exitCode = faults ? 1 : 0;

function tell(where, found) {
  faults += found.length;
  found.forEach((fault) => console.log(`${where}: ${fault}`));
}

// --- the site, served -----------------------------------------------------------------------------------------------

function serve(request, response) {
  const types = { ".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml", ".png": "image/png" };
  const path = join(SITE, normalize(decodeURIComponent(new URL(request.url, "http://x").pathname)));
  if (!existsSync(path) || !statSync(path).isFile()) return response.writeHead(404).end();
  response.writeHead(200, { "content-type": types[extname(path)] ?? "application/octet-stream" }).end(readFileSync(path));
}

// --- what a page weighs ---------------------------------------------------------------------------------------------

function* weigh(path) {
  const text = readFileSync(path, "utf8");
  const images = new Set([...text.matchAll(/\.\.\/_images\/([^"' )]+)/g)].map((match) => match[1]));
  const own = [...images].map((image) => statSync(join(SITE, "_images", image)).size);
  const bytes = own.reduce((sum, size) => sum + size, gzipSync(text).length);
  if (bytes > PAGE_BYTES) yield `${(bytes / 1e6).toFixed(2)} MB with its figures, expected at most ${PAGE_BYTES / 1e6}`;
}

/** Links to files of this site that are not there, which no browser asks for before somebody follows them. */
function* dead(path) {
  const links = new Set([...readFileSync(path, "utf8").matchAll(/<a [^>]*href="([^"#?]+)/g)].map((match) => match[1]));
  for (const link of [...links].filter((one) => !/^[a-z]+:/.test(one)))
    if (!existsSync(join(path, "..", decodeURIComponent(link)))) yield `a link leads to ${link}, which is not there`;
}

// --- what a reader sees ---------------------------------------------------------------------------------------------

async function look(path, visit) {
  const found = [];
  const context = await browser.newContext({ ...visit, reducedMotion: "reduce" });
  context.setDefaultTimeout(180_000); // a busy machine is slow, not wrong
  const page = await context.newPage();
  page.on("console", (said) => ["error", "warning"].includes(said.type()) && found.push(`console: ${said.text()}`));
  page.on("pageerror", (error) => found.push(`script: ${error.message}`));
  page.on("request", (asked) => /^(data|blob):/.test(asked.url()) || asked.url().startsWith(HOME)
    || found.push(`asks ${asked.url()}`));
  page.on("response", (answer) => answer.status() < 400 || found.push(`missing: ${answer.url().slice(HOME.length)}`));
  await page.goto(`${HOME}/book/${basename(path)}`, { waitUntil: "load" });
  await page.evaluate(() => window.MathJax?.startup?.promise);
  if (shots) await page.screenshot({ path: join(shots, `${basename(path, ".html")}-${visit.name}.png`), fullPage: true });

  const wide = await page.evaluate(sideways);
  if (wide) found.push(`scrolls sideways: ${wide}`);
  const late = await page.evaluate(below, 1.2 * visit.viewport.height);
  if (late) found.push(`the first picture ends at ${late} px, expected within 1.2 screens`);
  found.push(...(await page.evaluate(uncovered)));
  if (visit.name === "phone") found.push(...(await page.evaluate(smallText, [TEXT_PX, TEXT_PT, dpis(path)])));
  await page.evaluate(AXE);
  const { violations } = await page.evaluate(() => globalThis.axe.run({ resultTypes: ["violations"] }));
  for (const { id, impact, help, nodes } of violations.filter((one) => /serious|critical/.test(one.impact)))
    found.push(`${impact}: ${help} (${id}), ${nodes.length} ×, first ${nodes[0].html.slice(0, 160)}`);
  await context.close();
  return found;
}

/** The element that makes the page wider than its window, if one does. Runs in the page. */
function sideways() {
  const width = document.documentElement.clientWidth;
  if (document.scrollingElement.scrollWidth <= width) return null;
  const boxes = [...document.querySelectorAll("main *")].filter((e) => e.getBoundingClientRect().right > width + 1);
  const last = boxes.pop();
  return `${document.scrollingElement.scrollWidth} px of ${width}, ${last ? last.outerHTML.slice(0, 120) : "?"}`;
}

/** Where the first screen's picture ends, its caption apart, if that is too far down. Runs in the page. */
function below(limit) {
  const picture = document.querySelector("h1 ~ figure")?.querySelector(".panels, .stacked, img:not([hidden])");
  const end = picture?.getBoundingClientRect().bottom ?? 0;
  return end > limit ? Math.round(end) : null;
}

/** Code that shows before the reader has asked for it, and code that does not show afterwards. Runs in the page. */
function uncovered() {
  const visible = () => [...document.querySelectorAll("article div.cell_input")].filter((e) => e.checkVisibility());
  const said = visible().length ? [`${visible().length} cells of code show unasked`] : [];
  const button = document.querySelector("button.how");
  if (button) {
    button.click();
    if (!visible().length) said.push("the switch shows no code");
    button.click();
  }
  return said;
}

/** Figures whose smallest text is too small on this window. Runs in the page. */
function smallText([px, pt, dpis]) {
  return [...document.querySelectorAll("article img")].flatMap((image) => {
    const dpi = dpis[image.src.split("/").pop()];
    if (!dpi || !image.width) return [];
    const shown = ((image.dataset.text ?? pt) * image.width) / ((image.naturalWidth * 72) / dpi);
    return shown < px ? [`text of ${shown.toFixed(1)} px in ${image.src.split("/").pop().slice(0, 12)}, ${image.alt.slice(0, 60)}`] : [];
  });
}

/** Dots an inch of each PNG of a page, from the file's own pHYs chunk. */
function dpis(path) {
  const names = [...readFileSync(path, "utf8").matchAll(/\.\.\/_images\/([^"' )]+\.png)/g)].map((match) => match[1]);
  return Object.fromEntries(names.map((name) => {
    const data = readFileSync(join(SITE, "_images", name));
    const at = data.indexOf("pHYs");
    return [name, at > 0 ? Math.round(data.readUInt32BE(at + 4) * 0.0254) : 0];
  }));
}
