"""HTML on standard input, its URL as argument, Markdown on standard output: a program with bounds of its own.

What it reads is anybody's. A page that makes the converter eat memory, hang or die must not take a worker with it.
"""

import resource
import sys

from html_to_markdown import ConversionOptions, convert

MEMORY_BYTES = 512 * 1024**2
CPU_SECONDS = 10
OUTPUT_CHARS = 2_000_000


def main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    html = sys.stdin.buffer.read().decode("utf-8", "replace")
    options = ConversionOptions(extract_metadata=False, skip_images=True, compact_tables=True, base_url=sys.argv[1])
    content = convert(html, options).content or ""
    sys.stdout.buffer.write(content[:OUTPUT_CHARS].encode("utf-8", "replace"))


if __name__ == "__main__":
    main()
