// What a text begins with is read as the server wants it: with the token where there is one.
import { afterEach, expect, test, vi } from "vitest";
import { wantsToken } from "../../api/problem";
import { begin } from "./begin";

afterEach(() => vi.unstubAllGlobals());

/** A server beyond loopback, where reading needs a token, too. */
function guarded(): void {
  vi.stubGlobal("fetch", async (_: string, { headers }: { headers: Record<string, string> }) => {
    if (headers["authorization"] === "Bearer plt_right") return Response.json({ kind: "Service", metadata: { name: "cart", resourceVersion: "7" }, spec: {} });
    return Response.json({ type: "urn:pillion:problem:token-missing", title: "A valid token is needed" }, { status: 401 });
  });
}

const STORED = { plural: "services", namespace: "demo", name: "cart" };

test("with the token that was given", async () => {
  guarded();
  expect(await begin(STORED, "", "", "plt_right")).toMatchObject({ draft: { version: "7" } });
});

test("and without one it is said that one is needed", async () => {
  guarded();
  const begun = await begin(STORED, "", "", null);
  expect("problem" in begun && wantsToken(begun.problem)).toBe(true);
});
