import react from "@vitejs/plugin-react";
import { defineConfig } from "vitest/config";

// Every interface, and hosts like 5173-abc.localhost: the app may be looked at through a proxy.
const server = { host: "0.0.0.0", allowedHosts: [".localhost"] };

export default defineConfig({
  plugins: [react()],
  server,
  preview: server,
  test: { environment: "jsdom" },
});
