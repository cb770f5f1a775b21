// Stands between the browser and the control plane, and can go away and come back at the same address.
import { type Server, createServer, request } from "node:http";
import type { AddressInfo } from "node:net";

export interface Relay {
  url: string;
  /** Ends all connections and takes no more, as a control plane that is killed. */
  cut: () => Promise<void>;
  restore: () => Promise<void>;
}

export async function relay(to: string): Promise<Relay> {
  const target = new URL(to);
  let server: Server;
  const listen = (port: number) =>
    new Promise<number>((resolve, reject) => {
      server = createServer((incoming, outgoing) => {
        const forwarded = request(
          { host: target.hostname, port: target.port, path: incoming.url, method: incoming.method, headers: { ...incoming.headers, host: target.host } },
          (answer) => {
            outgoing.writeHead(answer.statusCode ?? 502, answer.headers);
            answer.pipe(outgoing);
          },
        );
        forwarded.on("error", () => outgoing.destroy());
        outgoing.on("close", () => forwarded.destroy());
        incoming.pipe(forwarded);
      });
      server.once("error", reject);
      server.listen(port, "127.0.0.1", () => resolve((server.address() as AddressInfo).port));
    });
  const port = await listen(0);
  return {
    url: `http://127.0.0.1:${port}/`,
    cut: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
    restore: async () => void (await listen(port)),
  };
}
