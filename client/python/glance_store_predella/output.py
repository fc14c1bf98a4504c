"""What the commands of predella-glance print, and how they end."""
import sys

# Exit codes, as those of predella.
DONE, FAILED, USAGE, NOT_HEALTHY = 0, 1, 2, 6


def table(header, rows, out=None):
    rows = [header, *rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(header))]
    for row in rows:
        line = '  '.join(cell.ljust(width)
                         for cell, width in zip(row, widths)).rstrip()
        # Names come from users: none may steer the terminal.
        print(''.join(c if c.isprintable() else '?' for c in line),
              file=out or sys.stdout)


def say(text):
    print(text, file=sys.stderr)
