// Time that jumps: when nothing is under way, the clock moves to the next timer. Loaded before everything else, so that
// every client gets these timers. Whether something is under way is asked of the server too: a client whose answer is
// still to come is not idle. With ZOO_REAL in the environment time is the real one. Randomness is whatever the zoo says, so that both ends of what a client draws are seen.
import net from "node:net"
import timers from "node:timers"
import { syncBuiltinESMExports } from "node:module"
import promises from "node:timers/promises"

const real = { setTimeout, setImmediate, Date }
const START = 1_800_000_000_000
let now = 0
let changes = 0
let lastId = 0
let heard
const waiting = new Map()

class Timer {
  constructor(call, wait, every) {
    Object.assign(this, { call, every, id: ++lastId })
    this.wait = Math.max(1, Number(wait) || 0)
    this.refresh()
  }
  refresh() {
    changes++
    this.at = now + this.wait
    waiting.delete(this.id)
    waiting.set(this.id, this)
    return this
  }
  ref() {
    return this
  }
  unref() {
    return this
  }
  hasRef() {
    return true
  }
  close() {
    waiting.delete(this.id)
  }
  [Symbol.toPrimitive]() {
    return this.id
  }
}

const isReal = Boolean(process.env.ZOO_REAL)
if (!isReal) replaceTimers()

function replaceTimers() {
  const start = (every) => (call, wait, ...values) => new Timer(() => call(...values), wait, every)
  const stop = (timer) => waiting.delete(typeof timer === "object" ? timer?.id : Number(timer))
  for (const each of [globalThis, timers]) {
    each.setTimeout = start(false)
    each.setInterval = start(true)
    each.clearTimeout = each.clearInterval = stop
  }
  promises.setTimeout = (wait, value) => new Promise((done) => new Timer(() => done(value), wait, false))
  syncBuiltinESMExports()
  globalThis.Date = class extends real.Date {
    constructor(...values) {
      super(...(values.length ? values : [START + now]))
    }
    static now() {
      return START + now
    }
  }
  performance.now = () => now
}

export const luck = { value: 0 }
Math.random = () => luck.value

/** Every connection that was begun: the port it came from, when, and when it was given up. */
export const connections = []
const sockets = new Set()
const connect = net.Socket.prototype.connect
net.Socket.prototype.connect = function (...values) {
  const seen = { opened: now, closed: null, port: null }
  sockets.add(this)
  this.once("connect", () => (seen.port = this.localPort))
  this.once("close", () => (seen.closed = now))
  connections.push(seen)
  return connect.apply(this, values)
}

let control
let answered
const turns = async (count) => {
  for (; count; count--) await new Promise(real.setImmediate)
}

/** Say something to the server, and wait for its answer. */
export async function say(word) {
  const answer = new Promise((done) => (answered = done))
  control.write(`${word}\n`)
  await answer
}

export async function begin(port) {
  control = new net.Socket()
  connect.call(control, port, "127.0.0.1")
  await new Promise((done) => control.once("connect", done))
  control.setNoDelay(true)
  control.on("data", () => answered())
  control.write("zoo\n")
}

/** What the network has done so far. */
function traffic() {
  let bytes = 0
  for (const each of sockets) bytes += each.bytesRead + each.bytesWritten + (each.destroyed ? 1 : 0) + (each.connecting ? 0 : 1)
  return `${bytes} ${connections.length}`
}

/** Wait until nothing is under way here or at the server: until two looks in a row see the same. */
async function settle() {
  await turns(3)
  for (let same = 0; same < 2 && traffic() !== heard; ) {
    const before = traffic()
    const set = changes
    await say("ping")
    await turns(3)
    same = traffic() === before && set === changes ? same + 1 : 0
    if (same === 2) heard = before
  }
}

/** Let time pass until `until`, as fast as it can. */
export async function pass(until) {
  if (isReal) await new Promise((done) => real.setTimeout(done, until - now))
  while (!isReal) {
    await settle()
    const next = Math.min(...[...waiting.values()].map((each) => each.at))
    if (!(next <= until)) break
    now = Math.max(now, next)
    for (const each of [...waiting.values()]) {
      if (each.at > now || !waiting.has(each.id)) continue
      if (each.every) each.refresh()
      else waiting.delete(each.id)
      try {
        each.call()
      } catch (error) {
        console.error(error)
      }
    }
  }
  now = until
}
