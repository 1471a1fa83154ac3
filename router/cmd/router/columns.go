package main

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// columns prints rows under a heading, aligned; numbers to the right.
type columns struct {
	right []bool
	rows  [][]string
}

// newColumns names the columns; a name that begins with ">" is one of numbers.
func newColumns(names ...string) *columns {
	c := &columns{}
	head := make([]string, len(names))
	for i, n := range names {
		text, right := strings.CutPrefix(n, ">")
		c.right = append(c.right, right)
		head[i] = text
	}
	c.rows = append(c.rows, head)
	return c
}

func (c *columns) row(cells ...string) { c.rows = append(c.rows, cells) }

func (c *columns) empty() bool { return len(c.rows) == 1 }

func (c *columns) print(out io.Writer) error {
	widths := make([]int, len(c.right))
	for _, r := range c.rows {
		for i, cell := range r {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	for _, r := range c.rows {
		var b strings.Builder
		for i, cell := range r {
			if i > 0 {
				b.WriteString("  ")
			}
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
			if c.right[i] {
				b.WriteString(pad + cell)
			} else {
				b.WriteString(cell + pad)
			}
		}
		if _, err := fmt.Fprintln(out, strings.TrimRight(b.String(), " ")); err != nil {
			return err
		}
	}
	return nil
}

// number spells an integer with thousands apart.
func number[T int | int64 | uint64](n T) string {
	text := strconv.FormatInt(int64(n), 10)
	sign := ""
	if text[0] == '-' {
		sign, text = "-", text[1:]
	}
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return sign + text
}

// bytesText spells a size.
func bytesText(n uint64) string {
	switch {
	case n == 0:
		return "-"
	case n >= 10<<30:
		return fmt.Sprintf("%.0f GiB", float64(n)/(1<<30))
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	}
	return fmt.Sprintf("%.0f MiB", float64(n)/(1<<20))
}

// ago spells how long something has been, by the two largest units.
func ago(d time.Duration) string {
	d = max(d, 0).Round(time.Second)
	day := 24 * time.Hour
	switch {
	case d >= day:
		return fmt.Sprintf("%dd%dh", d/day, d%day/time.Hour)
	case d >= time.Hour:
		return fmt.Sprintf("%dh%dm", d/time.Hour, d%time.Hour/time.Minute)
	case d >= time.Minute:
		return fmt.Sprintf("%dm%ds", d/time.Minute, d%time.Minute/time.Second)
	}
	return d.String()
}

// since is ago, or "-" for a time that is not known.
func since(at, now time.Time) string {
	if at.IsZero() {
		return "-"
	}
	return ago(now.Sub(at))
}

// safe keeps what others wrote (names, zones, keys) from steering the terminal.
func safe(text string) string {
	if strings.ContainsFunc(text, func(r rune) bool { return !strconv.IsPrint(r) }) {
		return strconv.Quote(text)
	}
	return text
}

// terminal reports whether a person looks at out.
func terminal(out io.Writer) bool {
	f, ok := out.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
