// The clients of the zoo that Node runs, each as its documentation begins: `open` connects one and keeps it. What is not
// said is left as it comes. `code` is what stands in the table.
import { readFileSync } from "node:fs"

const root = new URL("../../../../", import.meta.url)
const ignore = () => {}

/** The code that docs/clients.md gives for a browser, run as it stands there. */
function documented(url) {
  const page = readFileSync(new URL("docs/clients.md", root), "utf8")
  const code = page.split("### Browser")[1].split("```js\n")[1].split("```")[0]
  new Function(code.replace('"wss://example.com/ws"', JSON.stringify(url)))()
}

export const clients = {
  ws: {
    package: "ws",
    kind: "websocket",
    code: "new WebSocket(url)",
    load: async () => (await import("ws")).default,
    open: (WebSocket, url) => new WebSocket(url).on("error", ignore),
  },
  "full-jitter": {
    package: "ws",
    kind: "websocket",
    code: "the code of docs/clients.md",
    load: async () => null,
    open: (_, url) => documented(url),
  },
  "reconnecting-websocket": {
    package: "reconnecting-websocket",
    kind: "websocket",
    code: "new ReconnectingWebSocket(url)",
    load: async () => (await import("reconnecting-websocket")).default,
    open: (Client, url) => new Client(url),
  },
  partysocket: {
    package: "partysocket",
    kind: "websocket",
    code: "new WebSocket(url)",
    load: async () => (await import("partysocket/ws")).default,
    open: (Client, url) => new Client(url),
  },
  sockette: {
    package: "sockette",
    kind: "websocket",
    code: "new Sockette(url)",
    load: async () => (await import("sockette")).default,
    open: (Client, url) => new Client(url),
  },
  "socket.io-client": {
    package: "socket.io-client",
    kind: "websocket",
    dialect: "socket.io",
    code: 'io(url, { transports: ["websocket"] })',
    load: async () => (await import("socket.io-client")).io,
    open(io, url) {
      const { origin, pathname } = new URL(url)
      io(origin, { path: pathname, transports: ["websocket"], forceNew: true })
    },
  },
  "graphql-ws": {
    package: "graphql-ws",
    kind: "websocket",
    dialect: "graphql-ws",
    code: "createClient({ url })",
    load: async () => (await import("graphql-ws")).createClient,
    open: (createClient, url) =>
      createClient({ url }).subscribe({ query: "subscription { ticks }" }, { next: ignore, error: ignore, complete: ignore }),
  },
  "graphql-ws-advised": {
    package: "graphql-ws",
    kind: "websocket",
    dialect: "graphql-ws",
    code: "createClient({ url, retryAttempts: Infinity, shouldRetry: () => true })",
    load: async () => (await import("graphql-ws")).createClient,
    open: (createClient, url) =>
      createClient({ url, retryAttempts: Infinity, shouldRetry: () => true }).subscribe(
        { query: "subscription { ticks }" },
        { next: ignore, error: ignore, complete: ignore },
      ),
  },
  signalr: {
    package: "@microsoft/signalr",
    kind: "websocket",
    dialect: "signalr",
    code: "withAutomaticReconnect()",
    load: () => import("@microsoft/signalr"),
    open({ HubConnectionBuilder, HttpTransportType, LogLevel }, url) {
      new HubConnectionBuilder()
        .withUrl(url.replace("ws", "http"), { skipNegotiation: true, transport: HttpTransportType.WebSockets })
        .withAutomaticReconnect()
        .configureLogging(LogLevel.None)
        .build()
        .start()
        .catch(ignore)
    },
  },
  phoenix: {
    package: "phoenix",
    kind: "websocket",
    dialect: "phoenix",
    code: "new Socket(url)",
    load: async () => (await import("phoenix")).Socket,
    open(Socket, url) {
      const socket = new Socket(url)
      socket.connect()
      socket.channel("room").join()
    },
  },
  "supabase-realtime": {
    package: "@supabase/realtime-js",
    kind: "websocket",
    dialect: "phoenix",
    code: "new RealtimeClient(url)",
    load: async () => (await import("@supabase/realtime-js")).RealtimeClient,
    open(RealtimeClient, url) {
      const client = new RealtimeClient(url, { params: { apikey: "x" }, transport: globalThis.WebSocket })
      client.channel("room").subscribe()
    },
  },
  centrifuge: {
    package: "centrifuge",
    kind: "websocket",
    dialect: "centrifuge",
    code: "new Centrifuge(url)",
    load: async () => (await import("centrifuge")).Centrifuge,
    open(Centrifuge, url) {
      const client = new Centrifuge(url)
      client.on("error", ignore)
      client.connect()
    },
  },
  stompjs: {
    package: "@stomp/stompjs",
    kind: "websocket",
    dialect: "stomp",
    code: "new Client({ brokerURL: url })",
    load: async () => (await import("@stomp/stompjs")).Client,
    open: (Client, url) => new Client({ brokerURL: url }).activate(),
  },
  "eventsource-3": {
    package: "eventsource",
    kind: "event-stream",
    code: "new EventSource(url)",
    load: async () => (await import("eventsource")).EventSource,
    open: (EventSource, url) => new EventSource(url).addEventListener("error", ignore),
  },
  "eventsource-4": {
    package: "eventsource",
    folder: "eventsource4",
    kind: "event-stream",
    code: "new EventSource(url)",
    load: async () => (await import("eventsource4")).EventSource,
    open: (EventSource, url) => new EventSource(url).addEventListener("error", ignore),
  },
  "reconnecting-eventsource": {
    package: "reconnecting-eventsource",
    kind: "event-stream",
    code: "new ReconnectingEventSource(url)",
    async load() {
      globalThis.EventSource = (await import("eventsource4")).EventSource // the browser's, for which it is made
      return (await import("reconnecting-eventsource")).default
    },
    open: (Client, url) => new Client(url),
  },
  "fetch-event-source": {
    package: "@microsoft/fetch-event-source",
    kind: "event-stream",
    code: "fetchEventSource(url)",
    load: async () => (await import("@microsoft/fetch-event-source")).fetchEventSource,
    open: (fetchEventSource, url) => fetchEventSource(url, { openWhenHidden: true }).catch(ignore),
  },
  "graphql-sse": {
    package: "graphql-sse",
    kind: "event-stream",
    code: "createClient({ url })",
    load: async () => (await import("graphql-sse")).createClient,
    open: (createClient, url) =>
      createClient({ url }).subscribe({ query: "subscription { ticks }" }, { next: ignore, error: ignore, complete: ignore }),
  },
  "mcp-sdk": {
    package: "@modelcontextprotocol/sdk",
    kind: "event-stream",
    dialect: "mcp",
    code: "StreamableHTTPClientTransport",
    load: async () => (await import("@modelcontextprotocol/sdk/client/streamableHttp.js")).StreamableHTTPClientTransport,
    async open(Transport, url) {
      const transport = new Transport(new URL(url))
      transport.onerror = ignore
      await transport.start()
      await transport.send({ jsonrpc: "2.0", method: "notifications/initialized" })
    },
  },
}

export function version(name) {
  const file = new URL(`../node_modules/${clients[name].folder ?? clients[name].package}/package.json`, import.meta.url)
  return JSON.parse(readFileSync(file, "utf8")).version
}
