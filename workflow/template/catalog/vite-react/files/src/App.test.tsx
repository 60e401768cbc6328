import { cleanup, fireEvent, render, screen } from "@testing-library/react";
import { afterEach, expect, test } from "vitest";

import { App } from "./App";
import { title } from "./title";

afterEach(cleanup);

test("the heading is the app's title", () => {
  render(<App />);
  expect(screen.getByRole("heading").textContent).toBe(title);
});

test("a click is counted", () => {
  render(<App />);
  const button = screen.getByRole("button");
  expect(button.textContent).toBe("Clicked 0 times");
  fireEvent.click(button);
  expect(button.textContent).toBe("Clicked 1 time");
});
