// Everything that comes from the server is set as text: an application's clients choose paths, and AWS words.
const $ = (id) => document.getElementById(id)
const PATH = location.pathname
const QUIET = 5 // seconds without news after which the page says so
const GIVE_UP = 8 // seconds after which it asks again: another worker may answer
const SPAN = 900 // seconds that the chart shows while the task serves
const KEPT = 7200 // samples

let token = "" // in memory only
let following = null
let status = null
let heardAt = 0
let refusal = ""
let samples = []
let run = null
let announced = ""

const now = () => performance.now() / 1000
const sleep = (seconds) => new Promise((done) => setTimeout(done, seconds * 1000))

// --- Words

const count = (value) => Math.round(value ?? 0).toLocaleString("en")
const rate = (value) => (value ?? 0).toLocaleString("en", { maximumFractionDigits: value < 10 ? 1 : 0 })
const sessions = (number) => `${count(number)} ${number === 1 ? "session" : "sessions"}`

function clock(seconds) {
  const whole = Math.max(0, Math.round(seconds))
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60]
  const tail = String(rest).padStart(2, "0")
  return hours ? `${hours}:${String(minutes).padStart(2, "0")}:${tail}` : `${minutes}:${tail}`
}

function duration(seconds) {
  if (seconds < 10) return `${Math.round(seconds * 10) / 10} s`
  const whole = Math.round(seconds)
  if (whole < 120) return `${whole} s`
  return whole < 7200 ? `${Math.floor(whole / 60)} min ${whole % 60} s` : `${Math.round(whole / 360) / 10} h`
}

function plain(value) {
  if (value === null || value === undefined) return "-"
  if (Array.isArray(value)) return value.map(plain).join("; ") || "-"
  if (typeof value === "object") return Object.entries(value).map(([name, each]) => `${name}: ${plain(each)}`).join(", ")
  return String(value)
}

// --- Nodes

function node(name, className = "", ...children) {
  const made = document.createElement(name)
  if (className) made.className = className
  made.append(...children)
  return made
}

function write(target, text) {
  if (target.textContent !== text) target.textContent = text
}

function sync(parent, items, make, update) {
  const known = new Map([...parent.children].map((each) => [each.dataset.key, each]))
  const nodes = items.map((item) => {
    const key = String(item.key)
    const found = known.get(key) ?? make(item)
    found.dataset.key = key
    return found
  })
  if (nodes.length !== parent.children.length || nodes.some((each, at) => each !== parent.children[at])) {
    parent.replaceChildren(...nodes)
  }
  nodes.forEach((each, at) => update(each, items[at]))
}

function drawing(name, attributes, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name)
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value)
  if (text !== undefined) made.textContent = text
  return made
}

// --- Signing in and following

function signOut(why = "") {
  following?.abort()
  following = null
  token = ""
  status = run = null
  samples = []
  refusal = announced = ""
  for (const each of document.querySelectorAll("dialog[open]")) each.close()
  for (const id of ["problems", "causes", "triggers", "workers", "sum", "numbers", "report", "curve", "flow"]) $(id).replaceChildren()
  $("board").hidden = $("sign-out").hidden = $("live").hidden = true
  $("sign-in").hidden = false
  delete document.documentElement.dataset.state
  document.title = "Drain"
  write($("sign-in-error"), why)
  $("token-form").querySelector("button").disabled = false
  $("token").focus()
}

function signIn(event) {
  event.preventDefault()
  token = $("token").value.trim()
  write($("sign-in-error"), "")
  if (!/^[\x21-\x7e]+$/.test(token)) return signOut("That is not the admin token.")
  $("token-form").querySelector("button").disabled = true
  follow()
}

function ask(options) {
  const headers = { accept: "application/json", authorization: `Bearer ${token}`, ...options.headers }
  return fetch(PATH, { cache: "no-store", credentials: "omit", redirect: "error", ...options, headers })
}

async function reason(response) {
  if (response.status === 401) return "That is not the admin token."
  const answer = await response.json().catch(() => ({}))
  return answer.error ? `The server says: ${answer.error}` : `The server answered ${response.status}.`
}

async function follow() {
  const mine = (following = new AbortController())
  for (let pause = 0.5; !mine.signal.aborted; pause = Math.min(pause * 2, 8)) {
    const began = heardAt
    try {
      const why = await followOnce(mine.signal)
      if (mine.signal.aborted) return
      if (why && (!status || why === "That is not the admin token.")) return signOut(why)
      refusal = why
    } catch {
      if (mine.signal.aborted) return
      if (!status) return signOut("The server does not answer.")
    }
    if (heardAt !== began) pause = 0.5
    await sleep(pause)
  }
}

async function followOnce(signal) {
  const attempt = new AbortController()
  let watchdog = 0
  const extend = () => {
    clearTimeout(watchdog)
    watchdog = setTimeout(() => attempt.abort(), GIVE_UP * 1000)
  }
  const stop = () => attempt.abort()
  signal.addEventListener("abort", stop)
  extend()
  try {
    const response = await ask({ headers: { accept: "text/event-stream" }, signal: attempt.signal })
    if (!response.ok) return await reason(response)
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader()
    for (let rest = ""; ; ) {
      const { done, value } = await reader.read()
      if (done || signal.aborted) return ""
      const events = (rest + value).split("\n\n")
      rest = events.pop()
      for (const each of events) take(JSON.parse(each.replace(/^data: /, "")))
      extend()
    }
  } finally {
    clearTimeout(watchdog)
    signal.removeEventListener("abort", stop)
  }
}

function take(news) {
  const isFirst = status === null
  status = news
  heardAt = now()
  refusal = ""
  note()
  if (isFirst) {
    $("token").value = ""
    $("sign-in").hidden = true
    $("board").hidden = $("sign-out").hidden = $("live").hidden = false
  }
  render()
}

// --- What the curve is drawn from

function note() {
  const { open, opened, closed } = status.sessions
  const last = samples.at(-1)
  if (last && (opened < last.opened || closed < last.closed) && status.scope === "task") samples = [] // another process
  samples.push({ t: heardAt, open, opened, closed })
  if (samples.length > KEPT) samples.shift()
  if (status.state === "serving") run = null
  else if (status.state === "drained") {
    if (run) run.over ??= heardAt
  } else followRun(status.drain, status.sessions.waiting + status.sessions.held)
}

function followRun(drain, waiting) {
  const ends = heardAt + (drain.eta > 0 ? drain.eta : (drain.time_left ?? 0))
  const isOther = drain.drain_id && run?.id && drain.drain_id !== run.id
  if (!run || run.over || isOther) {
    const start = drain.time_left > 0 ? heardAt - (drain.window - drain.time_left) : heardAt
    const total = waiting + drain.shed + drain.left
    run = { id: drain.drain_id, start, total, window: drain.window, plan: [[start, total], [ends, 0]], over: null }
    run.seen = heardAt
    run.deadline = drain.window === undefined ? ends : start + drain.window
  } else if (drain.window !== undefined && Math.abs(drain.window - (run.window ?? 0)) > 0.5) {
    run.window = drain.window
    run.deadline = heardAt + drain.time_left
    run.plan = [[heardAt, waiting], [ends, 0]]
  }
  run.id ??= drain.drain_id
}

// --- What is wrong, the worst first

function findProblems() {
  const found = []
  const age = now() - heardAt
  if (age > QUIET) {
    const isOver = status.state === "drained"
    const what = isOver
      ? "The task had drained. If its deployment goes on, its process has ended, as it should."
      : "Its process is stuck, has ended, or cannot be reached from here. See whether the task runs (aws ecs describe-tasks) and read its log. If other workers of the task answer, this page finds them by itself."
    const text = `${refusal || "No answer."} What you see is ${duration(age)} old. ${what}`
    found.push({ key: "lost", bad: !isOver, title: "This page has lost the server", text })
  }
  const silent = status.workers.filter((each) => each.silent)
  for (const each of silent) {
    const left = status.drain?.time_left === undefined ? "" : `; the deadline is in ${clock(status.drain.time_left)}`
    const text =
      `Its last heartbeat came ${duration(each.seconds_ago)} ago, with ${sessions(each.sessions.open)} open${left}. ` +
      "Its event loop is blocked, or the process hangs or was stopped: it asks no session to leave. " +
      `See what blocks it with "py-spy dump --pid ${each.pid}" in its container. If it stays silent, "kill -KILL ${each.pid}" ` +
      "lets the supervisor start another; its clients are cut without a close. The sum counts its last known numbers."
    found.push({ key: `silent ${each.pid}`, bad: true, title: `Worker ${each.pid} does not answer`, text })
  }
  const act = "Until it sees again nothing may notice a deregistration: then start the drain by hand."
  if (status.watch?.startsWith("blind") && !triggersShown().some(([, each]) => each.watch === "blind")) {
    const text = `${capital(plain(status.watch))}. ${act}` // another worker watches, or the trigger is off
    found.push({ key: "watch", bad: true, title: "The sources of this task see nothing", text })
  }
  for (const [name, each] of triggersShown()) {
    const unseen = each.watch === "blind" || (each.watch === "not yet" && each.last_error)
    const why = each.failed ?? each.error ?? (unseen && (each.because ?? each.last_error))
    if (!why) continue
    const what = each.failed || each.error ? "has failed" : each.watch === "blind" ? "is blind" : "sees nothing yet"
    const title = `Trigger ${name} ${what}`
    const since = each.blind_for ? ` for ${duration(each.blind_for)}` : ""
    found.push({ key: `trigger ${name}`, bad: true, title, text: `It sees nothing${since}: ${plain(why)}. ${act}` })
  }
  if (status.scope === "worker" && !silent.length) {
    const text = `The workers of this task cannot reach each other. All numbers are those of the worker that answered, and a command reaches that one only. Its log says why, under "workers".`
    found.push({ key: "scope", bad: true, title: "These are the numbers of one worker only", text })
  }
  for (const { level, problem, remedy } of status.process?.problems ?? []) {
    if (level === "unsafe") found.push({ key: `process ${problem}`, title: capital(problem), text: `${capital(remedy)}.` })
  }
  if (status.note) found.push({ key: "note", title: "New clients may still arrive", text: `${capital(status.note)}.` })
  if (status.failed_hooks) {
    const text = "Their clients were closed without the application's farewell. The log has the error of each."
    found.push({ key: "hooks", title: `${count(status.failed_hooks)} close ${status.failed_hooks === 1 ? "hook has" : "hooks have"} failed`, text })
  }
  return found
}

const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1)
const total = (workers, name) => workers.reduce((sum, each) => sum + (each[name] ?? 0), 0)
const triggersShown = () => Object.entries(status.triggers).filter(([name]) => name !== "workers")

// --- Drawing it

function render() {
  if (!status) return
  const age = now() - heardAt
  const isLost = age > QUIET
  $("live").classList.toggle("lost", isLost)
  write($("live-text"), isLost ? `no news for ${duration(age)}` : "live")
  renderProblems()
  renderHero(isLost)
  renderNumbers()
  renderCauses()
  renderTriggers()
  renderWorkers()
  renderCharts()
}

function renderProblems() {
  const found = findProblems()
  const make = () => node("div", "problem", node("b"), node("span"))
  sync($("problems"), found, make, (each, { bad, title, text }) => {
    each.className = bad ? "problem bad" : "problem"
    write(each.firstChild, title)
    write(each.lastChild, text)
  })
  const titles = found.map((each) => each.title).join(". ")
  if (titles !== announced) write($("announce"), (announced = titles)) // not each second, for those who listen
}

function headline() {
  const { state, report } = status
  if (status.mode === "observe" && state !== "serving") return "Only observed (DRAIN_MODE=observe): no session is closed."
  if (state === "serving") {
    const watching = triggersShown().filter(([, each]) => each.watch === "watching").map(([name]) => name)
    return watching.length ? `No drain. Watching: ${watching.join(", ")}.` : "No drain."
  }
  if (state === "draining") {
    const heard = status.workers.filter((each) => !each.silent) // the pace of one that hangs is none
    const [pace, last] = [total(heard, "rate"), Math.max(0, ...heard.map((each) => each.eta ?? 0))]
    return `Asking ${rate(pace)} per second to leave${last > 0 ? `, the last one in ${clock(last)}` : ""}.`
  }
  if (!report || !(report.sessions_at_start + report.arrived)) return "No session was open."
  const slack = Math.abs(report.slack ?? 0)
  switch (report.outcome) {
    case "drained":
      return `All sessions left in ${duration(report.duration)}, ${duration(slack)} before the deadline.`
    case "late":
      return `The last session left ${duration(slack)} after the deadline.`
    default:
      return report.still_open ? `${sessions(report.still_open)} still open at the end.` : `It ended as: ${report.outcome}.`
  }
}

function renderHero(isLost) {
  const { state, drain } = status
  const open = status.sessions.open
  document.documentElement.dataset.state = state
  write($("state"), capital(state))
  write($("headline"), headline())
  write($("open"), count(open))
  const all = run && !run.over ? Math.max(run.total, open) : 0
  write($("open-of"), all ? `of ${count(all)}` : "")
  const timeLeft = drain?.time_left
  $("deadline-box").hidden = timeLeft === undefined
  if (timeLeft !== undefined) {
    write($("deadline"), clock(timeLeft - (isLost ? 0 : now() - heardAt)))
    write($("deadline-label"), timeLeft > 0 ? "until the deadline" : "the deadline has passed")
  }
  $("progress").hidden = !all
  if (all) $("progress").value = 1 - open / all
  const isTold = (drain ?? status.report ?? {}).causes?.some((each) => each.revocable === false) && state !== "serving"
  $("start").hidden = state !== "serving"
  $("cancel").hidden = state === "serving"
  $("cancel").disabled = isTold
  write($("cancel"), state === "drained" ? "Serve again…" : "Cancel the drain…")
  write($("action-note"), isTold ? "The process has been told to stop: too late to cancel." : "")
  document.title = `${capital(state)} · ${count(open)} open`
  const colour = { serving: "%230b7a43", draining: "%23d98200", drained: "%231c5bc9" }[state]
  const icon = `data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'><circle cx='8' cy='8' r='7' fill='${colour}'/></svg>`
  const link = document.querySelector("link[rel=icon]")
  if (link.getAttribute("href") !== icon) link.setAttribute("href", icon)
}

function renderFigures(parent, figures) {
  const items = figures.map(([name, value, attention]) => ({ key: name, value, attention }))
  const make = (item) => node("div", "", node("dt", "", item.key), node("dd"))
  sync(parent, items, make, (each, { value, attention }) => {
    each.className = attention ? "attention" : ""
    write(each.lastChild, value)
  })
}

function renderNumbers() {
  const { drain, report } = status
  const { waiting, held, leaving } = status.sessions
  const figures = [["not asked yet", count(waiting)], ["held", count(held)], ["leaving", count(leaving)]]
  if (drain) {
    figures.push(["asked to leave", count(drain.shed)], ["left on their own", count(drain.left)])
    figures.push(["late arrivals refused", count(drain.refused)], ["forced", count(drain.forced), drain.forced > 0])
  }
  figures.push(["responses in progress", count(status.answers)], ["endpoints still running", count(status.working)])
  renderFigures($("numbers"), figures)
  $("report-card").hidden = !report
  if (!report) return
  const isBad = !["drained", "cancelled"].includes(report.outcome)
  renderFigures($("report"), [
    ["outcome", report.outcome, isBad],
    ["took", duration(report.duration)],
    [report.slack < 0 ? "after the deadline" : "before the deadline", duration(Math.abs(report.slack)), report.slack < 0],
    ["detection lag, at most", report.detection_lag === undefined ? "-" : duration(report.detection_lag)],
    ["open at the start", count(report.sessions_at_start)],
    ["asked to leave", count(report.shed)],
    ["left on their own", count(report.left)],
    ["late arrivals accepted", count(report.arrived)],
    ["late arrivals refused", count(report.refused)],
    ["forced", count(report.forced), report.forced > 0],
    ["still open", count(report.still_open), isBad && report.still_open > 0],
    ["peak per second", rate(report.peak_rate)],
  ])
}

function renderCauses() {
  const causes = status.drain?.causes ?? (status.state === "drained" ? status.report?.causes : undefined) ?? []
  $("causes-card").hidden = status.state === "serving"
  const items = causes.map((each) => ({ ...each, key: `${each.trigger} ${each.reason}` }))
  if (!items.length) items.push({ key: "none", reason: "Another worker knows why; ask again in a moment." })
  const make = () => node("li", "", node("p", "title"), node("p", "muted"))
  sync($("causes"), items, make, (each, cause) => {
    write(each.firstChild, cause.reason)
    if (!cause.trigger) return
    const parts = [cause.trigger, `${duration(cause.seconds_ago)} ago`]
    parts.push(cause.revocable ? "can be cancelled" : "cannot be cancelled")
    parts.push(cause.taken_out ? "target taken out of service" : "target may still be in service")
    write(each.lastChild, parts.join(" · "))
  })
}

function sightOf(trigger) {
  if (trigger.failed) return ["failed", "bad", trigger.failed]
  if (trigger.error) return ["failed", "bad", trigger.error]
  if (trigger.why) return ["off", "", trigger.why]
  if (trigger.watched_by) return ["elsewhere", "", `Worker ${trigger.watched_by} watches for all.`]
  const said = trigger.because ?? trigger.last_error ?? trigger.state
  if (trigger.watch === "watching") return ["watching", "good", said]
  if (trigger.watch === "not yet") return ["not yet", "warn", said]
  if (trigger.watch === "blind") return ["blind", "bad", said]
  return ["ready", "", said]
}

function renderTriggers() {
  const items = triggersShown().map(([name, trigger]) => ({ key: name, trigger }))
  const make = (item) => {
    const title = node("p", "title", node("span", "", item.key), node("span", "tag"))
    return node("li", "", title, node("p", "muted"), node("details", "", node("summary", "", "Details"), node("dl", "facts")))
  }
  sync($("triggers"), items, make, (each, { trigger }) => {
    const [title, said, details] = each.children
    const [word, kind, text] = sightOf(trigger)
    const age = typeof trigger.answer_age === "number" ? `last answer ${duration(trigger.answer_age)} ago` : ""
    write(title.lastChild, word)
    title.lastChild.className = `tag ${kind}`
    write(said, [text === undefined || text === null ? "" : plain(text), age].filter(Boolean).join(" · "))
    said.hidden = !said.textContent
    const facts = Object.entries(trigger).map(([key, value]) => ({ key, value }))
    details.hidden = !facts.length
    sync(details.lastChild, facts, (fact) => {
      const pair = node("div", "", node("dt", "", fact.key.replaceAll("_", " ")), node("dd"))
      return pair
    }, (pair, fact) => write(pair.lastChild, plain(fact.value)))
  })
}

function row(cells) {
  const made = node("tr")
  cells.forEach((_, at) => {
    const cell = node(at ? "td" : "th", ["", "", "n", "n", "n wide", "n"][at])
    if (!at) cell.scope = "row"
    made.append(cell)
  })
  return made
}

function renderWorkers() {
  const fill = (each, { cells, silent }) => {
    each.className = silent ? "silent" : ""
    cells.forEach((text, at) => write(each.children[at], text))
  }
  const age = now() - heardAt
  const workers = [...status.workers].sort((one, other) => Number(other.silent ?? 0) - Number(one.silent ?? 0))
  const rows = workers.map((each) => {
    const unheard = each.seconds_ago + (age > QUIET ? age : 0)
    const heard = unheard < 1 ? "now" : `${duration(unheard)} ago`
    const word = each.silent ? "silent" : each.state
    return { key: each.pid, silent: each.silent, cells: [String(each.pid), word, count(each.sessions.open), count(each.shed), each.silent ? "-" : rate(each.rate), heard] }
  })
  sync($("workers"), rows, (item) => row(item.cells), fill)
  const pace = total(workers.filter((each) => !each.silent), "rate")
  const cells = ["sum", status.state, count(status.sessions.open), count(total(workers, "shed")), rate(pace), ""]
  sync($("sum"), workers.length > 1 ? [{ key: "sum", cells }] : [], (item) => row(item.cells), fill)
}

// --- The charts

function step(span, most, sizes) {
  return sizes.find((each) => span / each <= most) ?? sizes.at(-1)
}

const TIMES = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600]
const COUNTS = [...Array(9).keys()].flatMap((power) => [1, 2, 5].map((each) => each * 10 ** power))

function span() {
  const end = now()
  if (run) return [run.start, Math.max(run.deadline, run.plan[1][0], run.over ?? end, run.start + 5)]
  const first = samples[0]?.t ?? end
  return [end - Math.min(SPAN, Math.max(60, end - first)), end]
}

function canvas(parent, label) {
  const { width, height } = parent.firstChild?.getBoundingClientRect?.() ?? { width: parent.clientWidth, height: 0 }
  const svg = drawing("svg", { role: "img", "aria-label": label })
  parent.replaceChildren(svg)
  const box = height ? { width, height } : svg.getBoundingClientRect()
  svg.setAttribute("viewBox", `0 0 ${box.width} ${box.height}`)
  const em = parseFloat(getComputedStyle(document.documentElement).fontSize)
  return { svg, width: box.width, height: box.height, em, left: 2.9 * em, right: box.width - 0.6 * em }
}

function renderCharts() {
  const [from, to] = span()
  const seen = samples.filter((each) => each.t >= from - 2 && each.t <= to + 1)
  renderCurve(from, to, seen)
  renderFlow(from, to, seen)
  $("key-plan").hidden = !run
  $("key-before").hidden = !run || run.seen - run.start < 2
}

function renderCurve(from, to, seen) {
  const open = status.sessions.open
  const label = run ? `${count(open)} of ${count(run.total)} sessions open, ${clock(heardAt - run.start)} after the start` : `${sessions(open)} open`
  const { svg, width, height, em, left, right } = canvas($("curve"), label)
  const [top, bottom] = [1.4 * em, height - 1.6 * em]
  const most = Math.max(1, run?.total ?? 0, ...seen.map((each) => each.open))
  const tick = step(most, 4, COUNTS)
  const ceiling = Math.max(most * 1.04, tick)
  const x = (time) => left + ((time - from) / (to - from)) * (right - left)
  const y = (number) => bottom - (number / ceiling) * (bottom - top)
  for (let number = 0; number <= ceiling; number += tick) {
    svg.append(drawing("line", { class: number ? "grid" : "axis", x1: left, x2: right, y1: y(number), y2: y(number) }))
    svg.append(drawing("text", { x: left - 0.5 * em, y: y(number) + 0.28 * em, "text-anchor": "end" }, count(number)))
  }
  const beat = step(to - from, Math.max(2, width / (5.5 * em)), TIMES)
  for (let time = run ? 0 : Math.ceil((from - to) / beat) * beat; time <= (run ? to - from : 0); time += beat) {
    const at = x((run ? from : to) + time)
    const word = run ? clock(time) : time ? `−${clock(-time)}` : "now"
    svg.append(drawing("text", { x: at, y: height - 0.35 * em, "text-anchor": at > right - em ? "end" : "middle" }, word))
  }
  if (run) {
    const [[t0, n0], [t1, n1]] = run.plan
    svg.append(drawing("path", { class: "plan", d: `M${x(t0)} ${y(n0)}L${x(t1)} ${y(n1)}` }))
    const at = Math.min(x(run.deadline), right)
    svg.append(drawing("line", { class: "deadline", x1: at, x2: at, y1: top, y2: bottom }))
    svg.append(drawing("text", { class: "deadline-text", x: at, y: top - 0.45 * em, "text-anchor": "end" }, "deadline"))
    const first = seen[0]
    if (first && run.seen - run.start > 2 && first.t >= run.seen) {
      svg.append(drawing("path", { class: "before", d: `M${x(run.start)} ${y(run.total)}L${x(first.t)} ${y(first.open)}` }))
    }
  }
  const shown = run?.over ? seen.filter((each) => each.t <= run.over + 0.01) : seen
  const stride = Math.max(1, Math.ceil(shown.length / (width / 2)))
  const points = shown.filter((_, at) => at % stride === 0 || at === shown.length - 1)
  if (!points.length) return
  const line = points.map((each) => `${Math.max(left, x(each.t)).toFixed(1)} ${y(each.open).toFixed(1)}`).join("L")
  const last = points.at(-1)
  svg.append(drawing("path", { class: "area", d: `M${Math.max(left, x(points[0].t))} ${bottom}L${line}L${x(last.t)} ${bottom}Z` }))
  svg.append(drawing("path", { class: "line", d: `M${line}` }))
  svg.append(drawing("circle", { class: "now", cx: x(last.t), cy: y(last.open), r: 0.35 * em }))
}

function renderFlow(from, to, seen) {
  const [recent, last] = [seen.find((each) => each.t >= heardAt - 5.5), seen.at(-1)]
  const per = (name) => (recent && last && last.t > recent.t ? (last[name] - recent[name]) / (last.t - recent.t) : 0)
  write($("new-rate"), rate(per("opened")))
  write($("closed-rate"), rate(per("closed")))
  const label = `${rate(per("opened"))} new and ${rate(per("closed"))} closed per second`
  const { svg, width, height, em, left, right } = canvas($("flow"), label)
  const size = Math.max(2, step(to - from, width / (0.5 * em), TIMES))
  const origin = run ? from : Math.floor(from / size) * size
  const bins = new Map()
  for (let at = 1; at < seen.length; at++) {
    const [one, other] = [seen[at - 1], seen[at]]
    if (other.t <= one.t) continue // the last of one stream and the first of the next
    for (let bin = Math.floor((one.t - origin) / size); bin <= Math.floor((other.t - origin) / size); bin++) {
      const overlap = Math.min(other.t, origin + (bin + 1) * size) - Math.max(one.t, origin + bin * size)
      const share = overlap / (other.t - one.t) / size
      const sum = bins.get(bin) ?? { opened: 0, closed: 0 }
      sum.opened += (other.opened - one.opened) * share
      sum.closed += (other.closed - one.closed) * share
      bins.set(bin, sum)
    }
  }
  const most = Math.max(1, ...[...bins.values()].flatMap((each) => [each.opened, each.closed]))
  const up = Math.max(most * 0.2, ...[...bins.values()].map((each) => each.opened))
  const down = Math.max(most * 0.2, ...[...bins.values()].map((each) => each.closed))
  const scale = (height - 0.8 * em) / (up + down)
  const zero = 0.4 * em + up * scale
  const x = (time) => left + ((time - from) / (to - from)) * (right - left)
  for (const [bin, each] of bins) {
    const x1 = Math.max(left, x(origin + bin * size) + 0.5)
    const x2 = Math.min(right, x(origin + (bin + 1) * size) - 0.5)
    if (x2 <= x1) continue
    svg.append(drawing("rect", { class: "new", x: x1, width: x2 - x1, y: zero - each.opened * scale, height: each.opened * scale }))
    svg.append(drawing("rect", { class: "closed", x: x1, width: x2 - x1, y: zero, height: each.closed * scale }))
  }
  svg.append(drawing("line", { class: "axis", x1: left, x2: right, y1: zero, y2: zero }))
  svg.append(drawing("text", { x: left - 0.5 * em, y: zero + 0.28 * em, "text-anchor": "end" }, "0"))
  const larger = up >= down ? zero - up * scale + 0.45 * em : zero + down * scale + 0.1 * em
  svg.append(drawing("text", { x: left - 0.5 * em, y: larger, "text-anchor": "end" }, rate(Math.max(up, down))))
}

// --- Commands

async function command(name, options) {
  const [error, button] = [$(`${name}-error`), $(`${name}-yes`)]
  write(error, "")
  button.disabled = true
  try {
    const response = await ask({ ...options, signal: AbortSignal.timeout(15000) })
    if (response.ok) $(`${name}-dialog`).close()
    else write(error, await reason(response))
  } catch {
    write(error, "The server has not answered. Look at its state before you try again.")
  } finally {
    button.disabled = false
  }
}

function startDrain(event) {
  event.preventDefault()
  const body = { reason: $("reason").value.trim() || $("reason").placeholder, taken_out: $("taken-out").checked }
  if ($("window").value !== "") body.window = $("window").valueAsNumber
  command("start", { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) })
}

function cancelDrain(event) {
  event.preventDefault()
  command("cancel", { method: "DELETE" })
}

function openDialog(name) {
  write($(`${name}-error`), "")
  if (name === "start") write($("start-text"), `${sessions(status.sessions.open)} of this task will be asked to leave, one by one, until the deadline.`)
  $(`${name}-dialog`).showModal()
}

write($("host"), location.host)
$("token-form").addEventListener("submit", signIn)
$("sign-out").addEventListener("click", () => signOut())
$("start").addEventListener("click", () => openDialog("start"))
$("cancel").addEventListener("click", () => openDialog("cancel"))
$("start-form").addEventListener("submit", startDrain)
$("cancel-form").addEventListener("submit", cancelDrain)
for (const each of document.querySelectorAll("[data-close]")) each.addEventListener("click", () => each.closest("dialog").close())
addEventListener("resize", () => {
  for (const id of ["curve", "flow"]) $(id).replaceChildren()
  render()
})
setInterval(() => now() - heardAt > 1.5 && render(), 1000)
signOut()
