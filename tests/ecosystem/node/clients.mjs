// Node's clients. Each line on standard output is what one of them saw; all end with standard input.
import { EventSource } from "eventsource"
import ReconnectingWebSocket from "reconnecting-websocket"
import WebSocket from "ws"

const [origin] = process.argv.slice(2)
const url = `${origin.replace("http", "ws")}/ws`
const report = (...words) => console.log(JSON.stringify(words))

function connect() {
  const socket = new WebSocket(`${url}/ws`)
  socket.on("open", () => socket.send("hello"))
  socket.on("message", () => report("ws", "heard"))
  socket.on("error", () => {}) // refused: the close comes next
  socket.on("close", (code, reason) => {
    report("ws", "closed", code, reason.toString())
    setTimeout(connect, 300)
  })
}
connect()

const reconnecting = new ReconnectingWebSocket(`${url}/reconnecting-websocket`, [], {
  WebSocket,
  minReconnectionDelay: 200,
  maxReconnectionDelay: 400,
})
reconnecting.addEventListener("open", () => reconnecting.send("hello"))
reconnecting.addEventListener("message", () => report("reconnecting-websocket", "heard"))
reconnecting.addEventListener("error", () => {})
reconnecting.addEventListener("close", ({ code, reason }) => report("reconnecting-websocket", "closed", code, reason))

const stream = new EventSource(`${origin}/stream/eventsource`)
let hears = false
stream.addEventListener("message", () => {
  if (!hears) report("eventsource", "heard")
  hears = true
})
stream.addEventListener("error", () => {
  report("eventsource", stream.readyState === EventSource.CONNECTING ? "comes back" : "gives up")
  hears = false
})

process.stdin.on("end", () => process.exit()).resume()
