// Opens the cases of the zoo in Chromium, in real time: chromium.mjs EXECUTABLE PORT CASES SECONDS. Each case has an
// address of its own, since a browser opens no more than six connections to one. It ends with standard input.
import net from "node:net"
import { chromium } from "playwright-core"

const [executablePath, port, cases, seconds] = process.argv.slice(2)
const control = net.connect(port, "127.0.0.1")
let answered
control.on("data", (data) => answered(Number(data)))
control.write("zoo\n")
const say = (word) => new Promise((done) => (answered = done) && control.write(`${word}\n`))
const sleep = (ms) => new Promise((done) => setTimeout(done, ms))

const browser = await chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-dev-shm-usage"] })
const page = await browser.newPage()
await page.goto(`http://127.0.0.1:${port}/`)
await page.evaluate(
  ([port, cases]) => {
    let host = 1
    const open = (Client, scheme, name) => (each) => new Client(`${scheme}://127.0.1.${host++}:${port}/${name}/${each}/plain`)
    window.kept = [
      ...cases.websocket.map(open(WebSocket, "ws", "chromium-websocket")),
      ...cases["event-stream"].map(open(EventSource, "http", "chromium-eventsource")),
    ]
  },
  [port, JSON.parse(cases)],
)
const expected = Object.values(JSON.parse(cases)).flat().filter((each) => each !== "first").length
while ((await say("ping")) < expected) await sleep(50)
await say("end")
await sleep(Number(seconds) * 1000)
const version = browser.version()
await browser.close()
process.stdout.write(JSON.stringify({ version }), () => process.exit())
