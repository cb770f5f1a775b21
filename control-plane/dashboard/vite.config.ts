// How the dashboard is built: one page, hashed assets, nothing fetched from elsewhere.
import { defineConfig } from "vitest/config";

export default defineConfig({
  // Relative addresses, so that the page also works behind a path prefix.
  base: "./",
  build: {
    target: "es2022",
    outDir: "dist",
    emptyOutDir: true,
    // The content security policy allows no data: addresses, so nothing may be inlined as one.
    assetsInlineLimit: 0,
    cssTarget: ["chrome123", "firefox120", "safari17.5"],
    modulePreload: { polyfill: false },
    // What the bundled packages ask to be told along with them.
    license: { fileName: "licenses.md" },
  },
  server: {
    // `npx vite` for development, against a control plane (or `npm run mock`) on this machine.
    proxy: { "/v1": process.env["PILLION_DASHBOARD_URL"] ?? "http://127.0.0.1:15080" },
  },
  test: {
    include: ["src/**/*.test.ts"],
    environment: "node",
  },
});
