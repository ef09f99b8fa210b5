// Runs clients through cases in time that jumps: node --import ./clock.mjs run.mjs PORT LUCK CASES STABLE HORIZON NAME…
// LUCK is two numbers, of before and after the end of the first connections, which comes after STABLE seconds of the
// HORIZON; without names all clients. Writes what the clock has seen.
import { begin, connections, luck, pass, say } from "./clock.mjs"
import { clients, version } from "./clients.mjs"

const [port, fortune, cases, stable, horizon, ...only] = process.argv.slice(2)
const [before, after] = fortune.split(",").map(Number)
const perKind = JSON.parse(cases)
const names = only.length ? only : Object.keys(clients)

process.on("uncaughtException", (error) => process.env.ZOO_DEBUG && console.error(error))
process.on("unhandledRejection", (error) => process.env.ZOO_DEBUG && console.error(error))

// Packages that are written for browsers ask for no more of one than this.
luck.value = before
const { default: WebSocket } = await import("ws")
globalThis.WebSocket = class extends WebSocket {
  constructor(url, protocols) {
    super(url, protocols)
    this.on("error", () => {})
  }
}
globalThis.window = globalThis
globalThis.document = { hidden: false, visibilityState: "visible", addEventListener() {}, removeEventListener() {} }
globalThis.addEventListener = globalThis.removeEventListener = () => {}
console.log = console.warn = console.info = console.debug = () => {}

await begin(port)
for (const [name, { kind, dialect = "plain", load, open }] of names.map((name) => [name, clients[name]])) {
  const loaded = await load()
  for (const each of perKind[kind]) {
    const url = `${kind === "websocket" ? "ws" : "http"}://127.0.0.1:${port}/${name}/${each}/${dialect}`
    open(loaded, url)
  }
}
await pass(stable * 1000)
luck.value = after
await say("end")
await pass(horizon * 1000)
const said = names.map((name) => [name, clients[name]]).map(([name, each]) => [name, { package: each.package, version: version(name), kind: each.kind, code: each.code }])
process.stdout.write(JSON.stringify({ ended: stable * 1000, connections, clients: Object.fromEntries(said) }), () => process.exit())
