// Command keys prints the record keys of the partitioner vectors, one a line in hexadecimal: hand-picked edges
// first, then a few thousand from a fixed seed. The same program prints the same keys for ever.
package main

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "keys:", err)
		os.Exit(1)
	}
}

func run() error {
	w := bufio.NewWriter(os.Stdout)
	fmt.Fprintln(w, "# Keys in hexadecimal, one a line; an empty line is the empty key. Made by integration/vectors/keys.")
	for _, key := range keys() {
		fmt.Fprintf(w, "%x\n", key)
	}
	return w.Flush()
}

func keys() [][]byte {
	var out [][]byte
	add := func(key string) { out = append(out, []byte(key)) }
	for _, key := range []string{
		"", "foobar", "alice", "0", "null", "\x00", "\x00\x00\x00\x00", "\xff", "\xff\xff\xff\xff", "\x80\x80\x80",
		"größe", "日本語", "ключ", "مفتاح", "🚂🔀", "e\u0301", "\u00e9", "\ufeffbom", "line\nbreak", " space ",
		"\x0e\x9c\x45\x01\x15",             // FNV-1a is 0x80000000, the int32 without a positive counterpart
		"\xb0\x33\x72\x48\x00\x00\x00\x00", // murmur2 is 0x80000000
	} {
		add(key)
	}
	for b := range 256 {
		out = append(out, []byte{byte(b)})
	}
	r := rand.New(rand.NewPCG(4711, 64))
	random := func(n int, letter func() byte) []byte {
		key := make([]byte, n)
		for i := range key {
			key[i] = letter()
		}
		return key
	}
	for n := range 70 { // every length modulo the hashes' block size, many times, with bytes that have the sign bit
		for range 10 {
			out = append(out, random(n, func() byte { return byte(r.UintN(256)) }))
		}
	}
	for i := range 800 {
		add(fmt.Sprintf("customer-%d", i))
	}
	for range 400 {
		add(fmt.Sprintf("%08x-%04x-4%03x-a%03x-%012x", r.Uint32(), r.UintN(1<<16), r.UintN(1<<12), r.UintN(1<<12), r.Uint64N(1<<48)))
	}
	for range 600 {
		out = append(out, random(1+r.IntN(40), func() byte { return ' ' + byte(r.UintN(95)) }))
	}
	letters := []rune("äöüßéñçøπλжщ中文字漢한글😀🚉‍")
	for range 400 {
		var key []rune
		for range 1 + r.IntN(16) {
			key = append(key, letters[r.IntN(len(letters))])
		}
		add(string(key))
	}
	for range 20 {
		out = append(out, random(1000+r.IntN(1000), func() byte { return byte(r.UintN(256)) }))
	}
	return out
}
