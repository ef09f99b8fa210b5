// Drives Chromium through the page of the admin route, one scenario each time. Steps that belong to the test (sessions
// that come, a drain that starts) are asked for on standard output, and done when a line comes back.
import assert from "node:assert/strict"
import { createRequire } from "node:module"
import { createInterface } from "node:readline"
import { readFileSync } from "node:fs"
import { chromium } from "playwright-core"

const [scenario, executablePath, url, token, folder] = process.argv.slice(2)
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8")
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]()
const browser = await chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-dev-shm-usage"] })

async function ask(what) {
  console.log(what)
  const { value, done } = await lines.next()
  assert(!done)
  return value
}

async function open(options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options })
  const page = await context.newPage()
  page.setDefaultTimeout(20_000)
  page.requests = []
  page.faults = []
  page.on("request", (request) => page.requests.push(request))
  page.on("pageerror", (error) => page.faults.push(error.stack))
  await page.addInitScript(axe) // the page's policy would not let it in later
  await page.addInitScript(() => {
    window.violations = []
    addEventListener("securitypolicyviolation", (event) => window.violations.push(event.violatedDirective))
  })
  await page.goto(url)
  return page
}

async function signIn(page, secret = token) {
  await page.getByLabel("Admin token").fill(secret)
  await page.getByRole("button", { name: "Sign in" }).click()
}

const state = (page, word) => page.getByRole("heading", { level: 1, name: word, exact: true }).waitFor()
const openNow = async (page) => Number((await page.locator("#open").textContent()).replace(/\D/g, ""))

async function check(page) {
  const { violations } = await page.evaluate(() => axe.run())
  assert.deepEqual(violations.map(({ id, nodes }) => [id, ...nodes.map((each) => each.html)]), [])
  const [needed, given] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth])
  assert(needed <= given, `${needed} px are needed, ${given} px are there`)
  const cards = page.locator(".card:visible, dialog[open]")
  const wide = await cards.evaluateAll((all) => all.filter((each) => each.scrollWidth > each.clientWidth).map((each) => each.id))
  assert.deepEqual(wide, [], "what is in a card does not stick out of it")
  assert.deepEqual(await page.evaluate(() => window.violations), [])
  assert.deepEqual(page.faults, [])
}

const scenarios = {
  async drain() {
    const page = await open()
    assert.equal(await page.locator("#board").isVisible(), false)
    await check(page)
    await signIn(page)
    await state(page, "Serving")
    await check(page)
    const before = await openNow(page)
    assert.equal(before, 40)

    await page.getByRole("button", { name: "Start a drain" }).click()
    await page.getByLabel("Window in seconds").fill("8")
    await page.getByLabel("Reason").fill("<img src=x onerror=alert(1)>")
    await check(page)
    await page.getByRole("button", { name: "Start the drain" }).click()
    await state(page, "Draining")
    const heights = new Set()
    const plan = page.locator("#curve .plan")
    await plan.waitFor()
    for (let open = before; open > 10; open = await openNow(page)) {
      heights.add(await page.locator("#curve .now").getAttribute("cy"))
      await page.waitForTimeout(200)
    }
    assert(heights.size >= 4, "the curve falls while the drain goes on")
    assert.equal(await page.locator("#causes img").count(), 0)
    assert.match(await page.locator("#causes").textContent(), /<img src=x onerror=alert\(1\)>/)
    await check(page)
    await state(page, "Drained")
    assert.match(await page.locator("#headline").textContent(), /^All sessions left in \d/)
    await check(page)

    const { origin, pathname } = new URL(url)
    for (const request of page.requests) {
      assert.equal(request.url(), origin + pathname)
      assert.equal((await request.allHeaders()).cookie, undefined)
    }
    assert.deepEqual(await page.context().cookies(), [])
    assert.deepEqual(await page.evaluate(() => [localStorage.length, sessionStorage.length]), [0, 0])
    await page.reload()
    await page.getByLabel("Admin token").waitFor()
    assert.equal(await page.getByLabel("Admin token").inputValue(), "")
  },

  async cancel() {
    const page = await open({ colorScheme: "dark" })
    await signIn(page)
    await ask("drain")
    await state(page, "Draining")
    await page.getByRole("button", { name: "Cancel the drain" }).click()
    await page.getByRole("button", { name: "Keep draining" }).click()
    await state(page, "Draining")
    await page.getByRole("button", { name: "Cancel the drain" }).click()
    await check(page)
    await page.getByRole("dialog").getByRole("button", { name: "Cancel the drain" }).click()
    await state(page, "Serving")
    await check(page)
    assert.equal(JSON.parse(await ask("state")), "serving")
  },

  async problems() {
    const status = JSON.parse(await ask("status"))
    const html = "<b onclick=alert(1)>x</b>"
    Object.assign(status, { scope: "worker", note: `${html} is in service`, failed_hooks: 2 })
    status.process = { problems: [{ level: "unsafe", problem: `a shell ${html}`, remedy: "use exec" }] }
    status.triggers.blind = { watch: "blind", blind_for: 90, because: `no answer ${html}` }
    status.triggers.lost = { watch: "not yet", last_error: `no target ${html}` }
    status.triggers.broken = { failed: `raised ${html}`, targets: [{ arn: html, healthy: null }] }
    status.triggers.off = { why: html }
    const page = await open()
    await page.route(url, (route) =>
      route.fulfill({ contentType: "text/event-stream", body: `data: ${JSON.stringify(status)}\n\n` }),
    )
    await signIn(page)
    await state(page, "Serving")
    assert.deepEqual(await page.locator(".problem b").allTextContents(), [
      "Trigger blind is blind",
      "Trigger lost sees nothing yet",
      "Trigger broken has failed",
      "These are the numbers of one worker only",
      `A shell ${html}`,
      "New clients may still arrive",
      "2 close hooks have failed",
    ])
    assert.match(await page.locator(".problem").first().textContent(), /for 90 s: no answer <b onclick/)
    assert.equal(await page.locator("[onclick]").count(), 0)
    for (const details of await page.locator("summary:visible").all()) await details.click()
    await check(page)
  },

  async refused() {
    const page = await open()
    for (const secret of ["wrong-horse-battery-staple", "nicht ohne Umlaut: ü"]) {
      await signIn(page, secret)
      await page.getByRole("alert").filter({ hasText: "That is not the admin token." }).waitFor()
      assert.equal(await page.locator("#board").isVisible(), false)
    }
    await check(page)
    await signIn(page)
    await state(page, "Serving")
    await page.getByRole("button", { name: "Sign out" }).click()
    await page.getByLabel("Admin token").waitFor()
    assert.equal(await page.locator("#board dd, #board svg").count(), 0)
  },

  async stop() {
    const page = await open()
    await signIn(page)
    await state(page, "Serving")
    await ask("stop")
    await page.locator(".problem").filter({ hasText: "This page has lost the server" }).waitFor()
    await check(page)
  },

  async together() {
    const page = await open()
    await signIn(page)
    for (const word of ["Serving", "Draining", "Drained"]) {
      await ask(word)
      await state(page, word)
      // What the command and Prometheus agree on. A session may leave while the page is read: then all look again.
      for (let left = NaN; left !== (await openNow(page)); await page.waitForTimeout(100)) left = Number(await ask("look"))
    }
    const figures = await page.locator("#report > div").evaluateAll((all) => all.map((each) => [...each.children].map((one) => one.textContent)))
    await ask(`report ${JSON.stringify(Object.fromEntries(figures))}`)
  },

  async stuck() {
    const page = await open({ viewport: { width: 360, height: 760 }, isMobile: true, hasTouch: true, deviceScaleFactor: 2 })
    await signIn(page)
    await state(page, "Serving")
    const pid = await ask("stick")
    const first = page.locator(".problem").first()
    await first.filter({ hasText: `Worker ${pid} does not answer` }).waitFor()
    assert.match(await first.textContent(), new RegExp(`py-spy dump --pid ${pid}`))
    await ask("drain")
    await state(page, "Draining")
    assert.match(await page.locator("#workers tr").first().textContent(), new RegExp(`^${pid}silent`))
    const opened = await page.locator("#workers tr td:nth-child(3)").allTextContents()
    assert.equal(opened.length, 3)
    assert.equal(opened.map(Number).reduce((sum, each) => sum + each), await openNow(page))
    await check(page)
    await page.locator("summary").first().click()
    await check(page)
  },
}

try {
  await scenarios[scenario]()
} finally {
  for (const page of browser.contexts().flatMap((each) => each.pages())) {
    await page.screenshot({ path: `${folder}/${scenario}.png`, fullPage: true }).catch(() => {})
  }
  await browser.close()
}
process.exit()
