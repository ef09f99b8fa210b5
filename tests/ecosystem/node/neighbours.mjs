// Node's neighbours of test_neighbours.py. Each line on standard output is what a client saw.
import { fetchEventSource } from "@microsoft/fetch-event-source"
import { createClient } from "graphql-sse"

const [origin] = process.argv.slice(2)
const say = (...words) => console.log(JSON.stringify(words))

// The package is written for a browser and asks for no more of it than this.
globalThis.window = globalThis
globalThis.document = { hidden: false, addEventListener() {}, removeEventListener() {} }

const ready = new Set()
function hears(name) {
  if (!ready.has(name) && ready.add(name).size === 2) say("ready")
}

let comingBack = false
fetchEventSource(`${origin}/events`, {
  openWhenHidden: true,
  onmessage() {
    hears("events")
    if (comingBack) say("events", "back")
    comingBack = false
  },
  onclose() {
    say("events", "complete")
  },
  onerror() {
    if (!comingBack) say("events", "lost")
    comingBack = true
    return 200
  },
})

// Every result counts as a message, so one that is lost is missed. Node's fetch accepts anything: say what is wanted.
let results = 0
createClient({ url: `${origin}/graphql`, retryAttempts: 0 }).subscribe(
  { query: "subscription { count(to: 25) }" },
  {
    next() {
      if (++results === 3) hears("graphql")
    },
    error: (error) => say("graphql", "error", error.message),
    complete: () => say("graphql", "complete", results),
  },
)
