import { useState } from "react";

import { title } from "./title";

export function App() {
  const [count, setCount] = useState(0);
  return (
    <main style={{ maxWidth: "40rem" }}>
      <h1>{title}</h1>
      <button type="button" onClick={() => setCount(count + 1)}>
        Clicked {count} {count === 1 ? "time" : "times"}
      </button>
    </main>
  );
}
